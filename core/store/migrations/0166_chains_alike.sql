-- Payments of a batch that have fees are chains that are mostly alike: what repeats with each chain is sent once. To
-- write an element of an array takes a caller longer than to repeat it takes here.

-- Apply chains of one length: p_codes and p_flags have an element for each place in a chain, or p_codes one for all. The
-- others are those of `fleet.ledger_apply`, which answers, and asks whose they are.
CREATE FUNCTION fleet.ledger_apply_chains(
    exact boolean, p_ids uuid[], p_tenants uuid[], p_debits uuid[], p_credits uuid[], p_amounts bigint[],
    p_ledgers integer[], p_codes integer[], p_flags smallint[], p_pending_ids uuid[], p_timeouts integer[],
    p_user_data uuid[]
) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    expected integer := cardinality(p_ids);
    size     integer := cardinality(p_flags);
BEGIN
    WHILE cardinality(p_codes) < expected LOOP p_codes := p_codes || p_codes; END LOOP;
    WHILE cardinality(p_flags) < expected LOOP p_flags := p_flags || p_flags; END LOOP;
    RETURN fleet.ledger_apply(exact, p_ids, p_tenants, p_debits, p_credits, p_amounts, p_ledgers,
        p_codes[:expected], p_flags[:expected], p_pending_ids, p_timeouts, p_user_data,
        ARRAY(SELECT p_ids[1 + place - place % size] FROM generate_series(0, expected - 1) place), ARRAY[size]);
END $$;
REVOKE ALL ON FUNCTION fleet.ledger_apply_chains FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.ledger_apply_chains TO fleet_app, fleet_worker;
