-- Of a batch's columns the most are alike in every row, or NULL: what travels once is written and read once.

-- Write transfers that were judged, their resolutions and the balances. Every writer of the ledger locks in one
-- order, hence waits in no circle: accounts by id, then transfers by id, then resolutions by id.
-- With `exact` the caller holds the accounts' locks and has judged order and flags; without it, this function
-- takes the locks and refuses (returns false, nothing written) whatever it cannot prove safe in every order.
-- Runs with the owner's rights, so that row security is not asked row by row: the tenant is checked once, at the top.
CREATE OR REPLACE FUNCTION fleet.ledger_apply(
    exact boolean, p_ids uuid[], p_tenants uuid[], p_debits uuid[], p_credits uuid[], p_amounts bigint[],
    p_ledgers integer[], p_codes integer[], p_flags smallint[], p_pending_ids uuid[], p_timeouts integer[],
    p_user_data uuid[], p_chain_ids uuid[], p_chain_lengths integer[]
) RETURNS boolean
-- Planning over all partitions costs more than the work; arrays of any length take the same plan.
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    expected integer := cardinality(p_ids);
    whole    integer[] := ARRAY[cardinality(p_ids)];
    held     bigint[];
    own      text := current_setting('fleet.tenant', true);
    holds    integer;
    touched  uuid[];
    written  integer;
    stamp    timestamptz;
BEGIN
    -- Background work serves every tenant; whoever else calls is confined to the one of its transaction.
    IF NOT pg_has_role(session_user, 'fleet_worker', 'MEMBER')
        AND (coalesce(own, '') = '' OR EXISTS (SELECT FROM unnest(p_tenants) t WHERE t <> own::uuid)) THEN
        RAISE EXCEPTION 'a transfer of another tenant than the transaction''s' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- A column that is the same for all came as one element.
    IF cardinality(p_tenants) < expected THEN p_tenants := array_fill(p_tenants[1], whole); END IF;
    IF cardinality(p_debits) < expected THEN p_debits := array_fill(p_debits[1], whole); END IF;
    IF cardinality(p_credits) < expected THEN p_credits := array_fill(p_credits[1], whole); END IF;
    IF cardinality(p_amounts) < expected THEN p_amounts := array_fill(p_amounts[1], whole); END IF;
    IF cardinality(p_ledgers) < expected THEN p_ledgers := array_fill(p_ledgers[1], whole); END IF;
    IF cardinality(p_codes) < expected THEN p_codes := array_fill(p_codes[1], whole); END IF;
    IF cardinality(p_flags) < expected THEN p_flags := array_fill(p_flags[1], whole); END IF;
    IF cardinality(p_pending_ids) < expected THEN p_pending_ids := array_fill(p_pending_ids[1], whole); END IF;
    IF cardinality(p_timeouts) < expected THEN p_timeouts := array_fill(p_timeouts[1], whole); END IF;
    IF cardinality(p_user_data) < expected THEN p_user_data := array_fill(p_user_data[1], whole); END IF;
    IF cardinality(p_chain_ids) < expected THEN p_chain_ids := array_fill(p_chain_ids[1], whole); END IF;
    IF cardinality(p_chain_lengths) < expected THEN p_chain_lengths := array_fill(p_chain_lengths[1], whole); END IF;
    holds := (SELECT count(p) FROM unnest(p_pending_ids) p);
    SELECT array_agg(DISTINCT a) INTO touched FROM unnest(p_debits || p_credits) a;
    -- Read under the locks, and later than whatever moved these accounts before: an account's movements are in the
    -- order of their stamps, for good, whatever the clock does.
    WITH locked AS MATERIALIZED (
        SELECT moved_at FROM fleet.accounts WHERE id = ANY (touched) ORDER BY id FOR NO KEY UPDATE
    ) SELECT max(moved_at) + interval '1 microsecond' INTO stamp FROM locked;
    stamp := greatest(clock_timestamp(), stamp);

    INSERT INTO fleet.transfers (id, tenant_id, debit_account_id, credit_account_id, amount_minor, ledger, code,
        flags, pending_id, timeout_s, user_data, chain_id, chain_length, expires_at, created_at)
    SELECT t.*, now() + t.timeout_s * interval '1 second', stamp
    FROM unnest(p_ids, p_tenants, p_debits, p_credits, p_amounts, p_ledgers, p_codes, p_flags,
        p_pending_ids, p_timeouts, p_user_data, p_chain_ids, p_chain_lengths)
        AS t(id, tenant_id, debit, credit, amount, ledger, code, flags, pending_id, timeout_s, user_data, chain, size)
    ORDER BY t.id
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> expected THEN RAISE SQLSTATE 'FL001'; END IF;

    IF holds > 0 THEN
        INSERT INTO fleet.transfer_resolutions (pending_id, tenant_id, kind, transfer_id, resolved_at)
        SELECT h.id, h.tenant_id, r.flags & 12, r.id, stamp
        FROM unnest(p_ids, p_tenants, p_debits, p_credits, p_amounts, p_codes, p_flags, p_pending_ids)
            AS r(id, tenant_id, debit, credit, amount, code, flags, pending_id)
        JOIN fleet.transfers h ON h.id = r.pending_id AND h.flags & 2 = 2 AND h.tenant_id = r.tenant_id
            AND h.debit_account_id = r.debit AND h.credit_account_id = r.credit AND h.code = r.code
            AND (h.amount_minor = r.amount OR (h.amount_minor > r.amount AND r.flags & 4 = 4))
            AND (h.expires_at IS NULL OR h.expires_at > now())
        WHERE r.pending_id IS NOT NULL
        ORDER BY h.id
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written <> holds THEN RAISE SQLSTATE 'FL001'; END IF;
        -- What was held, in the order of the batch: a batch that resolves nothing looks for no hold.
        SELECT array_agg(h.amount_minor ORDER BY p.place) INTO held
        FROM unnest(p_pending_ids) WITH ORDINALITY AS p(id, place) LEFT JOIN fleet.transfers h ON h.id = p.id;
    END IF;

    WITH legs AS (
        SELECT t.debit, t.credit, t.flags,
            CASE WHEN t.flags & 2 = 2 THEN t.amount WHEN t.flags & 12 <> 0 THEN -t.held ELSE 0 END AS pending,
            CASE WHEN t.flags & 10 = 0 THEN t.amount ELSE 0 END AS posted
        FROM unnest(p_debits, p_credits, p_amounts, p_flags, held) AS t(debit, credit, amount, flags, held)
    ), delta AS (
        SELECT account, sum(dp)::bigint AS dp, sum(dd)::bigint AS dd, sum(cp)::bigint AS cp, sum(cd)::bigint AS cd,
            sum(d_new)::bigint AS d_new, sum(c_new)::bigint AS c_new, bool_or(opens) AS opens
        FROM (
            SELECT debit AS account, pending AS dp, posted AS dd, 0 AS cp, 0 AS cd,
                CASE WHEN flags & 12 = 0 THEN pending + posted ELSE 0 END AS d_new, 0 AS c_new, flags & 12 = 0 AS opens
            FROM legs
            UNION ALL
            SELECT credit, 0, 0, pending, posted, 0,
                CASE WHEN flags & 12 = 0 THEN pending + posted ELSE 0 END, flags & 12 = 0 FROM legs
        ) sides GROUP BY account
    )
    UPDATE fleet.accounts a SET
        debits_pending = a.debits_pending + dp, debits_posted = a.debits_posted + dd,
        credits_pending = a.credits_pending + cp, credits_posted = a.credits_posted + cd, moved_at = stamp
    FROM delta WHERE a.id = delta.account AND (exact OR (
        (a.flags & 4 = 0 OR NOT opens)
        AND (a.flags & 8 = 0 OR d_new = 0)
        AND (a.flags & 1 = 0 OR d_new = 0 OR a.debits_pending::numeric + a.debits_posted + d_new <= a.credits_posted)
        AND (a.flags & 2 = 0 OR c_new = 0 OR a.credits_pending::numeric + a.credits_posted + c_new <= a.debits_posted)
        AND a.debits_pending::numeric + a.debits_posted + d_new <= 9223372036854775807
        AND a.credits_pending::numeric + a.credits_posted + c_new <= 9223372036854775807));
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> cardinality(touched) THEN RAISE SQLSTATE 'FL001'; END IF;
    RETURN true;
EXCEPTION
    -- FL001 is this function's own "not proven"; the others are the guards' and the columns' refusals, which
    -- the exact path answers with a result before it comes here: from there they are faults and are raised.
    WHEN SQLSTATE 'FL001' THEN
        RETURN false;
    WHEN check_violation OR numeric_value_out_of_range THEN
        IF exact THEN RAISE; END IF;
        RETURN false;
END $$;
