-- Wallets that are frozen or closed, by whom and why; and an order of an account's movements that no clock can break.

-- flags: 1 debits must not exceed credits, 2 credits must not exceed debits, 4 closed, 8 frozen: no new debits
ALTER TABLE fleet.accounts DROP CONSTRAINT accounts_flags_check;
ALTER TABLE fleet.accounts ADD CONSTRAINT accounts_flags_check CHECK (flags BETWEEN 0 AND 15 AND flags & 3 <> 3);
-- The stamp of the account's last movement. Not indexed: updates stay heap-only.
ALTER TABLE fleet.accounts ADD COLUMN moved_at timestamptz NOT NULL DEFAULT '-infinity';
UPDATE fleet.accounts a SET moved_at = m.at FROM (
    SELECT account, max(at) AS at FROM (
        SELECT debit_account_id AS account, created_at AS at FROM fleet.transfers
        UNION ALL SELECT credit_account_id, created_at FROM fleet.transfers) sides GROUP BY account) m
WHERE a.id = m.account;

GRANT UPDATE (external_id) ON fleet.wallets TO fleet_app, fleet_worker;
GRANT UPDATE (moved_at) ON fleet.accounts TO fleet_app, fleet_worker;

-- What happened to a wallet beside its money: who, why, when. History is not edited.
CREATE TABLE fleet.wallet_events (
    wallet_id  uuid        NOT NULL,
    seq        integer     NOT NULL,
    tenant_id  uuid        NOT NULL,
    type       text        NOT NULL,
    actor      text        NOT NULL,
    reason     text        NOT NULL,
    data       jsonb       NOT NULL DEFAULT '{}',
    at         timestamptz NOT NULL,
    PRIMARY KEY (wallet_id, seq)
);
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON fleet.wallet_events
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_change();
SELECT fleet.confine_to_tenant('wallet_events');
GRANT SELECT, INSERT ON fleet.wallet_events TO fleet_app, fleet_worker;

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
    own      text := current_setting('fleet.tenant', true);
    holds    integer := (SELECT count(p) FROM unnest(p_pending_ids) p);
    touched  uuid[];
    written  integer;
    stamp    timestamptz;
BEGIN
    -- Background work serves every tenant; whoever else calls is confined to the one of its transaction.
    IF NOT pg_has_role(session_user, 'fleet_worker', 'MEMBER')
        AND (coalesce(own, '') = '' OR EXISTS (SELECT FROM unnest(p_tenants) t WHERE t <> own::uuid)) THEN
        RAISE EXCEPTION 'a transfer of another tenant than the transaction''s' USING ERRCODE = 'insufficient_privilege';
    END IF;
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
    END IF;

    WITH legs AS (
        SELECT t.debit, t.credit, t.flags,
            CASE WHEN t.flags & 2 = 2 THEN t.amount WHEN t.flags & 12 <> 0 THEN -h.amount_minor ELSE 0 END AS pending,
            CASE WHEN t.flags & 10 = 0 THEN t.amount ELSE 0 END AS posted
        FROM unnest(p_debits, p_credits, p_amounts, p_flags, p_pending_ids)
            AS t(debit, credit, amount, flags, pending_id)
        LEFT JOIN fleet.transfers h ON h.id = t.pending_id
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

-- Release holds whose time-out has passed. One runner at a time: to another one there is nothing to do meanwhile.
CREATE OR REPLACE FUNCTION fleet.ledger_expire(max_holds integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    due   uuid[];
    stamp timestamptz;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('fleet.ledger_expire')) THEN RETURN 0; END IF;
    SELECT array_agg(id) INTO due FROM (
        SELECT h.id FROM fleet.transfers h
        WHERE h.expires_at <= now()
            AND NOT EXISTS (SELECT FROM fleet.transfer_resolutions r WHERE r.pending_id = h.id)
        ORDER BY h.expires_at LIMIT max_holds) holds;
    IF due IS NULL THEN RETURN 0; END IF;
    WITH locked AS MATERIALIZED (
        SELECT moved_at FROM fleet.accounts WHERE id IN (
            SELECT unnest(ARRAY[debit_account_id, credit_account_id]) FROM fleet.transfers WHERE id = ANY (due))
        ORDER BY id FOR NO KEY UPDATE
    ) SELECT max(moved_at) + interval '1 microsecond' INTO stamp FROM locked;
    stamp := greatest(clock_timestamp(), stamp);
    -- What was posted or voided while this waited for the accounts is resolved, and stays so.
    WITH resolved AS (
        INSERT INTO fleet.transfer_resolutions (pending_id, tenant_id, kind, resolved_at)
        SELECT id, tenant_id, 16, stamp FROM fleet.transfers WHERE id = ANY (due) ORDER BY id
        ON CONFLICT DO NOTHING RETURNING pending_id
    ) SELECT array_agg(pending_id) INTO due FROM resolved;
    UPDATE fleet.accounts a SET debits_pending = a.debits_pending - d.dp, credits_pending = a.credits_pending - d.cp,
        moved_at = stamp
    FROM (SELECT account, sum(dp)::bigint AS dp, sum(cp)::bigint AS cp FROM (
            SELECT debit_account_id AS account, amount_minor AS dp, 0 AS cp FROM fleet.transfers WHERE id = ANY (due)
            UNION ALL
            SELECT credit_account_id, 0, amount_minor FROM fleet.transfers WHERE id = ANY (due)) s GROUP BY account) d
    WHERE a.id = d.account;
    RETURN coalesce(cardinality(due), 0);
END $$;

-- Freeze, unfreeze or close one account, in order with every transfer on it: the answer is the ledger's word. An
-- account with money or holds is not closed, in whatever direction they point: a hold that ends would move it after.
CREATE FUNCTION fleet.ledger_change_account(p_account uuid, p_tenant uuid, p_change text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    own   text := current_setting('fleet.tenant', true);
    found fleet.accounts;
BEGIN
    IF NOT pg_has_role(session_user, 'fleet_worker', 'MEMBER') AND p_tenant IS DISTINCT FROM nullif(own, '')::uuid THEN
        RAISE EXCEPTION 'an account of another tenant than the transaction''s' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT * INTO found FROM fleet.accounts WHERE id = p_account AND tenant_id = p_tenant FOR NO KEY UPDATE;
    IF found.id IS NULL THEN RETURN 'account_not_found'; END IF;
    IF found.flags & 4 = 4 THEN RETURN 'account_already_closed'; END IF;
    IF p_change = 'freeze' THEN
        IF found.flags & 8 = 8 THEN RETURN 'exists'; END IF;
        UPDATE fleet.accounts SET flags = flags | 8 WHERE id = p_account;
    ELSIF p_change = 'unfreeze' THEN
        IF found.flags & 8 = 0 THEN RETURN 'exists'; END IF;
        UPDATE fleet.accounts SET flags = flags & ~8 WHERE id = p_account;
    ELSIF p_change = 'close' THEN
        IF found.debits_pending <> 0 OR found.credits_pending <> 0 THEN RETURN 'account_has_holds'; END IF;
        IF found.debits_posted <> found.credits_posted THEN RETURN 'account_has_balance'; END IF;
        UPDATE fleet.accounts SET flags = flags | 4 WHERE id = p_account;
    ELSE
        RAISE EXCEPTION 'no change of an account is called %', p_change USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN 'ok';
END $$;
REVOKE ALL ON FUNCTION fleet.ledger_change_account FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.ledger_change_account TO fleet_app, fleet_worker;
