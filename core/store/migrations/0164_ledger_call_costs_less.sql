-- The ledger's call asks less of the server, with the same answers: a lone transfer goes a way of its own, and a batch
-- computes in 64 bits, looks at each hold once, and takes an id that is taken for the refusal that it is.

-- Write one transfer that nothing is chained to, its resolution and the balances, or return false with nothing written.
-- Called by `fleet.ledger_apply` alone, under its settings and rights. Whatever could refuse is asked before the first
-- write, under the accounts' locks: so nothing has to be undone, and no subtransaction is begun. The locks last until
-- the transaction ends, taken or refused: another tenant's account is therefore not met at all.
CREATE FUNCTION fleet.ledger_apply_one(
    p_id uuid, p_tenant uuid, p_debit uuid, p_credit uuid, p_amount bigint, p_ledger integer, p_code integer,
    p_flags smallint, p_pending_id uuid, p_timeout integer, p_user_data uuid
) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    opens   boolean := p_flags & 12 = 0;
    known   integer;
    sound   boolean;
    stamp   timestamptz;
    held    bigint;
    pending bigint;
    posted  bigint := CASE WHEN p_flags & 10 = 0 THEN p_amount ELSE 0 END;
BEGIN
    -- What an account holds and has moved in one direction fits 64 bits together: no difference here overflows.
    SELECT count(*), max(moved_at) + interval '1 microsecond', bool_and(
        ledger = p_ledger AND (NOT opens OR (flags & 4 = 0 AND CASE id
            WHEN p_debit THEN flags & 8 = 0 AND p_amount <= 9223372036854775807 - debits_pending - debits_posted
                AND (flags & 1 = 0 OR p_amount <= credits_posted - debits_pending - debits_posted)
            ELSE p_amount <= 9223372036854775807 - credits_pending - credits_posted
                AND (flags & 2 = 0 OR p_amount <= debits_posted - credits_pending - credits_posted)
        END)))
    INTO known, stamp, sound
    FROM (SELECT * FROM fleet.accounts WHERE id IN (p_debit, p_credit) AND tenant_id = p_tenant
        ORDER BY id FOR NO KEY UPDATE) locked;
    IF known <> 2 OR NOT sound THEN RETURN false; END IF;
    stamp := greatest(clock_timestamp(), stamp);

    IF opens THEN
        pending := p_amount - posted;
    ELSE
        -- Whoever ends this hold locks its accounts first: what is not resolved now, nobody resolves before us.
        SELECT h.amount_minor INTO held FROM fleet.transfers h
        WHERE h.id = p_pending_id AND h.flags & 2 = 2 AND h.tenant_id = p_tenant
            AND h.debit_account_id = p_debit AND h.credit_account_id = p_credit AND h.code = p_code
            AND (h.amount_minor = p_amount OR (h.amount_minor > p_amount AND p_flags & 4 = 4))
            AND (h.expires_at IS NULL OR h.expires_at > now())
            AND NOT EXISTS (SELECT FROM fleet.transfer_resolutions r WHERE r.pending_id = p_pending_id);
        IF held IS NULL THEN RETURN false; END IF;
        pending := -held;
    END IF;

    INSERT INTO fleet.transfers (id, tenant_id, debit_account_id, credit_account_id, amount_minor, ledger, code,
        flags, pending_id, timeout_s, user_data, expires_at, created_at)
    VALUES (p_id, p_tenant, p_debit, p_credit, p_amount, p_ledger, p_code, p_flags, p_pending_id, p_timeout,
        p_user_data, now() + p_timeout * interval '1 second', stamp)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN RETURN false; END IF;
    IF NOT opens THEN
        INSERT INTO fleet.transfer_resolutions (pending_id, tenant_id, kind, transfer_id, resolved_at)
        VALUES (p_pending_id, p_tenant, p_flags & 12, p_id, stamp);
    END IF;
    UPDATE fleet.accounts SET
        debits_pending = debits_pending + CASE id WHEN p_debit THEN pending ELSE 0 END,
        debits_posted = debits_posted + CASE id WHEN p_debit THEN posted ELSE 0 END,
        credits_pending = credits_pending + CASE id WHEN p_credit THEN pending ELSE 0 END,
        credits_posted = credits_posted + CASE id WHEN p_credit THEN posted ELSE 0 END, moved_at = stamp
    WHERE id IN (p_debit, p_credit);
    RETURN true;
END $$;
REVOKE ALL ON FUNCTION fleet.ledger_apply_one FROM PUBLIC;

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
-- Planning over all partitions costs more than the work; arrays of any length take the same plan. A plan that is made
-- while a table is empty would walk it for every row: what these functions meet they know by id.
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
DECLARE
    expected integer := cardinality(p_ids);
    whole    integer[] := ARRAY[cardinality(p_ids)];
    held     bigint[];
    own      text := current_setting('fleet.tenant', true);
    holds    integer;
    touched  integer;
    written  integer;
    stamp    timestamptz;
BEGIN
    -- Background work serves every tenant; whoever else calls is confined to the one of its transaction.
    IF NOT pg_has_role(session_user, 'fleet_worker', 'MEMBER')
        AND (coalesce(own, '') = '' OR NOT own::uuid = ALL (p_tenants)) THEN
        RAISE EXCEPTION 'a transfer of another tenant than the transaction''s' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF expected = 1 AND NOT exact AND p_chain_ids[1] IS NULL THEN
        RETURN fleet.ledger_apply_one(p_ids[1], p_tenants[1], p_debits[1], p_credits[1], p_amounts[1], p_ledgers[1],
            p_codes[1], p_flags[1], p_pending_ids[1], p_timeouts[1], p_user_data[1]);
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
    holds := cardinality(array_remove(p_pending_ids, NULL));
    BEGIN
        -- Read under the locks, and later than whatever moved these accounts before: an account's movements are in the
        -- order of their stamps, for good, whatever the clock does.
        SELECT count(*), max(moved_at) + interval '1 microsecond' INTO touched, stamp
        FROM (SELECT moved_at FROM fleet.accounts WHERE id = ANY (p_debits || p_credits)
            ORDER BY id FOR NO KEY UPDATE) locked;
        stamp := greatest(clock_timestamp(), stamp);

        INSERT INTO fleet.transfers (id, tenant_id, debit_account_id, credit_account_id, amount_minor, ledger, code,
            flags, pending_id, timeout_s, user_data, chain_id, chain_length, expires_at, created_at)
        SELECT t.*, now() + t.timeout_s * interval '1 second', stamp
        FROM unnest(p_ids, p_tenants, p_debits, p_credits, p_amounts, p_ledgers, p_codes, p_flags,
            p_pending_ids, p_timeouts, p_user_data, p_chain_ids, p_chain_lengths)
            AS t(id, tenant_id, debit, credit, amount, ledger, code, flags, pending_id, timeout_s, user_data, chain,
                size)
        ORDER BY t.id;

        IF holds > 0 THEN
            -- What was held, in the order of the batch: a batch that resolves nothing looks for no hold.
            SELECT array_agg(h.amount_minor ORDER BY r.place), count(h.id) INTO held, written
            FROM unnest(p_tenants, p_debits, p_credits, p_amounts, p_codes, p_flags, p_pending_ids)
                WITH ORDINALITY AS r(tenant_id, debit, credit, amount, code, flags, pending_id, place)
            LEFT JOIN fleet.transfers h ON h.id = r.pending_id AND h.flags & 2 = 2 AND h.tenant_id = r.tenant_id
                AND h.debit_account_id = r.debit AND h.credit_account_id = r.credit AND h.code = r.code
                AND (h.amount_minor = r.amount OR (h.amount_minor > r.amount AND r.flags & 4 = 4))
                AND (h.expires_at IS NULL OR h.expires_at > now());
            IF written <> holds THEN RAISE SQLSTATE 'FL001'; END IF;
            INSERT INTO fleet.transfer_resolutions (pending_id, tenant_id, kind, transfer_id, resolved_at)
            SELECT r.pending_id, r.tenant_id, r.flags & 12, r.id, stamp
            FROM unnest(p_ids, p_tenants, p_flags, p_pending_ids) AS r(id, tenant_id, flags, pending_id)
            WHERE r.pending_id IS NOT NULL
            ORDER BY r.pending_id;
        END IF;

        -- What an account holds and has moved in one direction fits 64 bits together: no difference here overflows.
        UPDATE fleet.accounts a SET
            debits_pending = a.debits_pending + dp, debits_posted = a.debits_posted + dd,
            credits_pending = a.credits_pending + cp, credits_posted = a.credits_posted + cd, moved_at = stamp
        FROM (
            SELECT account, bool_or(opens) AS opens,
                coalesce(sum(pending) FILTER (WHERE debited), 0)::bigint AS dp,
                coalesce(sum(posted) FILTER (WHERE debited), 0)::bigint AS dd,
                coalesce(sum(pending) FILTER (WHERE NOT debited), 0)::bigint AS cp,
                coalesce(sum(posted) FILTER (WHERE NOT debited), 0)::bigint AS cd,
                coalesce(sum(amount) FILTER (WHERE opens AND debited), 0)::bigint AS d_new,
                coalesce(sum(amount) FILTER (WHERE opens AND NOT debited), 0)::bigint AS c_new
            FROM (
                SELECT account, amount, flags & 12 = 0 AS opens, place <= expected AS debited,
                    CASE WHEN flags & 2 = 2 THEN amount WHEN flags & 12 <> 0 THEN -leg.held ELSE 0 END AS pending,
                    CASE WHEN flags & 10 = 0 THEN amount ELSE 0 END AS posted
                FROM unnest(p_debits || p_credits, p_amounts || p_amounts, p_flags || p_flags, held || held)
                    WITH ORDINALITY AS leg(account, amount, flags, held, place)
            ) legs GROUP BY account
        ) delta WHERE a.id = delta.account AND (exact OR (
            (a.flags & 4 = 0 OR NOT opens)
            AND (a.flags & 8 = 0 OR d_new = 0)
            AND (a.flags & 1 = 0 OR d_new = 0 OR d_new <= a.credits_posted - a.debits_pending - a.debits_posted)
            AND (a.flags & 2 = 0 OR c_new = 0 OR c_new <= a.debits_posted - a.credits_pending - a.credits_posted)
            AND d_new <= 9223372036854775807 - a.debits_pending - a.debits_posted
            AND c_new <= 9223372036854775807 - a.credits_pending - a.credits_posted));
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written <> touched THEN RAISE SQLSTATE 'FL001'; END IF;
        RETURN true;
    EXCEPTION
        -- FL001 is this function's own "not proven", and an id or a hold that is taken is no other; the rest are the
        -- guards' and the columns' refusals, which the exact path answers with a result before it comes here: from
        -- there they are faults and are raised.
        WHEN SQLSTATE 'FL001' OR unique_violation THEN
            RETURN false;
        WHEN check_violation OR numeric_value_out_of_range THEN
            IF exact THEN RAISE; END IF;
            RETURN false;
    END;
END $$;
