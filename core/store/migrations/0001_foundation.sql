-- Schema, tenants, partitions by time, and the ledger that the database itself guards.
-- Ids begin with 48 bits of milliseconds, so a range of ids is a range of time.

GRANT USAGE ON SCHEMA fleet TO fleet_app, fleet_worker;

CREATE TABLE fleet.tenants (
    tenant_id  uuid        PRIMARY KEY,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO fleet.tenants (tenant_id, name) VALUES ('00000000-0000-0000-0000-000000000000', 'system');

-- Row security of one table: the application sees its transaction's tenant, background work sees all.
CREATE FUNCTION fleet.confine_to_tenant(table_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('ALTER TABLE fleet.%I ENABLE ROW LEVEL SECURITY', table_name);
    EXECUTE format($p$CREATE POLICY app_tenant ON fleet.%I TO fleet_app
        USING (tenant_id = nullif(current_setting('fleet.tenant', true), '')::uuid)
        WITH CHECK (tenant_id = nullif(current_setting('fleet.tenant', true), '')::uuid)$p$, table_name);
    EXECUTE format('CREATE POLICY worker_all ON fleet.%I TO fleet_worker USING (true) WITH CHECK (true)', table_name);
END $$;
REVOKE ALL ON FUNCTION fleet.confine_to_tenant FROM PUBLIC;

-- Tables partitioned by id. Append-only ones also refuse UPDATE, DELETE and TRUNCATE, partition by partition.
CREATE TABLE fleet.partitioned_tables (
    table_name  text    PRIMARY KEY,
    append_only boolean NOT NULL DEFAULT false,
    insert_guard text  -- a trigger function over the transition table "inserted"
);

CREATE FUNCTION fleet.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: history is not edited', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE FUNCTION fleet.first_id_at(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT rpad(lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;

CREATE FUNCTION fleet.guard_table(table_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    parent fleet.partitioned_tables;
BEGIN
    SELECT r.* INTO parent FROM fleet.partitioned_tables r
    WHERE guard_table.table_name = r.table_name OR guard_table.table_name LIKE r.table_name || '\_p%';
    IF parent.append_only THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON fleet.%I
                        FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_change()', table_name);
    END IF;
    IF parent.insert_guard IS NOT NULL THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER insert_guard AFTER INSERT ON fleet.%I REFERENCING NEW TABLE AS inserted
                        FOR EACH STATEMENT EXECUTE FUNCTION fleet.%I()', table_name, parent.insert_guard);
    END IF;
END $$;
REVOKE ALL ON FUNCTION fleet.guard_table FROM PUBLIC;

-- Create what is missing: monthly partitions around now, and a default one as a net. Returns how many were made.
CREATE FUNCTION fleet.ensure_partitions(months_back integer, months_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET timezone = 'UTC' AS $$
DECLARE
    entry fleet.partitioned_tables;
    month timestamptz;
    part  text;
    made  integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('fleet.ensure_partitions'));
    FOR entry IN SELECT * FROM fleet.partitioned_tables LOOP
        PERFORM fleet.guard_table(entry.table_name) WHERE NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = ('fleet.' || quote_ident(entry.table_name))::regclass
                AND tgname IN ('refuse_change', 'insert_guard'));
        FOR month IN SELECT generate_series(date_trunc('month', now()) - make_interval(months => months_back),
                date_trunc('month', now()) + make_interval(months => months_ahead), interval '1 month') LOOP
            part := entry.table_name || '_p' || to_char(month, 'YYYYMM');
            CONTINUE WHEN to_regclass('fleet.' || quote_ident(part)) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE fleet.%I PARTITION OF fleet.%I FOR VALUES FROM (%L) TO (%L)', part,
                    entry.table_name, fleet.first_id_at(month), fleet.first_id_at(month + interval '1 month'));
                PERFORM fleet.guard_table(part);
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                -- The net holds rows of this month: they are served from there, and the other months still come.
                RAISE WARNING 'no partition %: its rows are in %_pdefault', part, entry.table_name;
            END;
        END LOOP;
        part := entry.table_name || '_pdefault';
        IF to_regclass('fleet.' || quote_ident(part)) IS NULL THEN
            EXECUTE format('CREATE TABLE fleet.%I PARTITION OF fleet.%I DEFAULT', part, entry.table_name);
            PERFORM fleet.guard_table(part);
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;
REVOKE ALL ON FUNCTION fleet.ensure_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.ensure_partitions TO fleet_worker;

-- flags: 1 debits must not exceed credits, 2 credits must not exceed debits, 4 closed
CREATE TABLE fleet.accounts (
    id              uuid     PRIMARY KEY,
    tenant_id       uuid     NOT NULL,
    ledger          integer  NOT NULL CHECK (ledger > 0),
    code            integer  NOT NULL CHECK (code > 0),
    flags           smallint NOT NULL CHECK (flags BETWEEN 0 AND 7 AND flags & 3 <> 3),
    user_data       uuid,
    debits_pending  bigint   NOT NULL DEFAULT 0 CHECK (debits_pending >= 0),
    debits_posted   bigint   NOT NULL DEFAULT 0 CHECK (debits_posted >= 0),
    credits_pending bigint   NOT NULL DEFAULT 0 CHECK (credits_pending >= 0),
    credits_posted  bigint   NOT NULL DEFAULT 0 CHECK (credits_posted >= 0),
    created_at      timestamptz NOT NULL DEFAULT now(),
    CHECK (flags & 1 = 0 OR debits_pending::numeric + debits_posted <= credits_posted),
    CHECK (flags & 2 = 0 OR credits_pending::numeric + credits_posted <= debits_posted)
) WITH (fillfactor = 50);  -- balances change in place: room for heap-only updates

-- flags: 1 linked, 2 pending, 4 post, 8 void. A chain is named by its first transfer; a chain is stored whole.
CREATE TABLE fleet.transfers (
    id                uuid     PRIMARY KEY,
    tenant_id         uuid     NOT NULL,
    debit_account_id  uuid     NOT NULL,
    credit_account_id uuid     NOT NULL CHECK (credit_account_id <> debit_account_id),
    amount_minor      bigint   NOT NULL CHECK (amount_minor > 0),
    ledger            integer  NOT NULL,
    code              integer  NOT NULL CHECK (code > 0),
    flags             smallint NOT NULL CHECK (flags & 14 IN (0, 2, 4, 8) AND flags BETWEEN 0 AND 15),
    pending_id        uuid     CHECK ((pending_id IS NOT NULL) = (flags & 12 <> 0)),
    timeout_s         integer  CHECK (timeout_s IS NULL OR (timeout_s > 0 AND flags & 2 = 2)),
    user_data         uuid,
    chain_id          uuid,
    chain_length      integer  CHECK ((chain_length IS NULL) = (chain_id IS NULL)),
    expires_at        timestamptz CHECK ((expires_at IS NULL) = (timeout_s IS NULL)),
    created_at        timestamptz NOT NULL DEFAULT now(),
    CHECK (flags & 1 = 0 OR chain_id IS NOT NULL)
) PARTITION BY RANGE (id);
CREATE INDEX transfers_by_debit ON fleet.transfers (debit_account_id, id);
CREATE INDEX transfers_by_credit ON fleet.transfers (credit_account_id, id);
CREATE INDEX transfers_by_expiry ON fleet.transfers (expires_at) WHERE expires_at IS NOT NULL;

-- A hold is resolved at most once. transfer_id is NULL for an expiry.
CREATE TABLE fleet.transfer_resolutions (
    pending_id  uuid     PRIMARY KEY,
    tenant_id   uuid     NOT NULL,
    kind        smallint NOT NULL CHECK (kind IN (4, 8, 16)),  -- post, void, expiry
    transfer_id uuid     CHECK ((transfer_id IS NULL) = (kind = 16)),
    resolved_at timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (pending_id);

-- Runs with the owner's rights: row security would be asked again for every account, and the tenant is compared here.
CREATE FUNCTION fleet.guard_transfers() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF EXISTS (
        SELECT FROM (SELECT debit_account_id AS account, ledger, tenant_id FROM inserted
                     UNION SELECT credit_account_id, ledger, tenant_id FROM inserted) t
        WHERE NOT EXISTS (SELECT FROM fleet.accounts a
            WHERE a.id = t.account AND a.ledger = t.ledger AND a.tenant_id = t.tenant_id)) THEN
        RAISE EXCEPTION 'a transfer must move between two accounts of its own ledger and tenant'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transfers_accounts';
    END IF;
    IF EXISTS (
        SELECT FROM inserted t WHERE t.chain_id IS NOT NULL GROUP BY t.chain_id
        HAVING count(*) <> min(t.chain_length) OR min(t.chain_length) <> max(t.chain_length)
            OR count(*) FILTER (WHERE t.flags & 1 = 0) <> 1) THEN
        RAISE EXCEPTION 'a chain of transfers must be written whole'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'transfers_chain_open';
    END IF;
    RETURN NULL;
END $$;

INSERT INTO fleet.partitioned_tables VALUES ('transfers', true, 'guard_transfers'), ('transfer_resolutions', true, NULL);
SELECT fleet.ensure_partitions(1, 3);

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['tenants', 'accounts', 'transfers', 'transfer_resolutions']) t;
GRANT SELECT ON fleet.tenants, fleet.schema_migrations TO fleet_app, fleet_worker;
GRANT SELECT, INSERT ON fleet.accounts, fleet.transfers, fleet.transfer_resolutions TO fleet_app, fleet_worker;
GRANT UPDATE (debits_pending, debits_posted, credits_pending, credits_posted) ON fleet.accounts
    TO fleet_app, fleet_worker;

-- Write transfers that were judged, their resolutions and the balances. Every writer of the ledger locks in one
-- order, hence waits in no circle: accounts by id, then transfers by id, then resolutions by id.
-- With `exact` the caller holds the accounts' locks and has judged order and flags; without it, this function
-- takes the locks and refuses (returns false, nothing written) whatever it cannot prove safe in every order.
-- Runs with the owner's rights, so that row security is not asked row by row: the tenant is checked once, at the top.
CREATE FUNCTION fleet.ledger_apply(
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
BEGIN
    -- Background work serves every tenant; whoever else calls is confined to the one of its transaction.
    IF NOT pg_has_role(session_user, 'fleet_worker', 'MEMBER')
        AND (coalesce(own, '') = '' OR EXISTS (SELECT FROM unnest(p_tenants) t WHERE t <> own::uuid)) THEN
        RAISE EXCEPTION 'a transfer of another tenant than the transaction''s' USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT array_agg(DISTINCT a) INTO touched FROM unnest(p_debits || p_credits) a;
    PERFORM FROM fleet.accounts WHERE id = ANY (touched) ORDER BY id FOR NO KEY UPDATE;

    INSERT INTO fleet.transfers (id, tenant_id, debit_account_id, credit_account_id, amount_minor, ledger, code,
        flags, pending_id, timeout_s, user_data, chain_id, chain_length, expires_at)
    SELECT t.*, now() + t.timeout_s * interval '1 second'
    FROM unnest(p_ids, p_tenants, p_debits, p_credits, p_amounts, p_ledgers, p_codes, p_flags,
        p_pending_ids, p_timeouts, p_user_data, p_chain_ids, p_chain_lengths)
        AS t(id, tenant_id, debit, credit, amount, ledger, code, flags, pending_id, timeout_s, user_data, chain, size)
    ORDER BY t.id
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> expected THEN RAISE SQLSTATE 'FL001'; END IF;

    IF holds > 0 THEN
        INSERT INTO fleet.transfer_resolutions (pending_id, tenant_id, kind, transfer_id)
        SELECT h.id, h.tenant_id, r.flags & 12, r.id
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
        credits_pending = a.credits_pending + cp, credits_posted = a.credits_posted + cd
    FROM delta WHERE a.id = delta.account AND (exact OR (
        (a.flags & 4 = 0 OR NOT opens)
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
REVOKE ALL ON FUNCTION fleet.ledger_apply FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.ledger_apply TO fleet_app, fleet_worker;

-- Release holds whose time-out has passed. One runner at a time: to another one there is nothing to do meanwhile.
CREATE FUNCTION fleet.ledger_expire(max_holds integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    due uuid[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('fleet.ledger_expire')) THEN RETURN 0; END IF;
    SELECT array_agg(id) INTO due FROM (
        SELECT h.id FROM fleet.transfers h
        WHERE h.expires_at <= now()
            AND NOT EXISTS (SELECT FROM fleet.transfer_resolutions r WHERE r.pending_id = h.id)
        ORDER BY h.expires_at LIMIT max_holds) holds;
    IF due IS NULL THEN RETURN 0; END IF;
    PERFORM FROM fleet.accounts WHERE id IN (
        SELECT unnest(ARRAY[debit_account_id, credit_account_id]) FROM fleet.transfers WHERE id = ANY (due))
    ORDER BY id FOR NO KEY UPDATE;
    -- What was posted or voided while this waited for the accounts is resolved, and stays so.
    WITH resolved AS (
        INSERT INTO fleet.transfer_resolutions (pending_id, tenant_id, kind)
        SELECT id, tenant_id, 16 FROM fleet.transfers WHERE id = ANY (due) ORDER BY id
        ON CONFLICT DO NOTHING RETURNING pending_id
    ) SELECT array_agg(pending_id) INTO due FROM resolved;
    UPDATE fleet.accounts a SET debits_pending = a.debits_pending - d.dp, credits_pending = a.credits_pending - d.cp
    FROM (SELECT account, sum(dp)::bigint AS dp, sum(cp)::bigint AS cp FROM (
            SELECT debit_account_id AS account, amount_minor AS dp, 0 AS cp FROM fleet.transfers WHERE id = ANY (due)
            UNION ALL
            SELECT credit_account_id, 0, amount_minor FROM fleet.transfers WHERE id = ANY (due)) s GROUP BY account) d
    WHERE a.id = d.account;
    RETURN coalesce(cardinality(due), 0);
END $$;
REVOKE ALL ON FUNCTION fleet.ledger_expire FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.ledger_expire TO fleet_app, fleet_worker;
