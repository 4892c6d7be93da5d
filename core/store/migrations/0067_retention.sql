-- What may be lost after a time, and what never: money has a wall of the database's own, for the owner too.

ALTER TABLE fleet.partitioned_tables ADD COLUMN never_lost boolean NOT NULL DEFAULT false;
UPDATE fleet.partitioned_tables SET never_lost = true WHERE table_name IN ('intents', 'jobs', 'attempts', 'facts');

CREATE FUNCTION fleet.refuse_loss() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: what is about money is never lost', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE OR REPLACE FUNCTION fleet.guard_table(table_name text) RETURNS void
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
    IF parent.never_lost THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER refuse_loss BEFORE DELETE OR TRUNCATE ON fleet.%I
                        FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_loss()', table_name);
    END IF;
    IF parent.insert_guard IS NOT NULL THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER insert_guard AFTER INSERT ON fleet.%I REFERENCING NEW TABLE AS inserted
                        FOR EACH STATEMENT EXECUTE FUNCTION fleet.%I()', table_name, parent.insert_guard);
    END IF;
    IF parent.storage IS NOT NULL AND guard_table.table_name <> parent.table_name THEN
        EXECUTE format('ALTER TABLE fleet.%I SET (%s)', table_name, parent.storage);
    END IF;
END $$;

DO $$
DECLARE
    guarded regclass;
BEGIN
    FOR guarded IN
        SELECT tree.relid FROM fleet.partitioned_tables t, pg_partition_tree('fleet.' || t.table_name) tree
        WHERE t.never_lost
        UNION ALL SELECT ('fleet.' || t)::regclass FROM unnest(ARRAY['accounts', 'wallets', 'idempotency_keys',
            'collections', 'provider_payments', 'provider_payment_names', 'provider_payment_sources',
            'provider_events', 'rail_files', 'rail_file_members', 'tenants']) t
    LOOP
        EXECUTE format('CREATE TRIGGER refuse_loss BEFORE DELETE OR TRUNCATE ON %s
                        FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_loss()', guarded);
    END LOOP;
END $$;

-- What may go, row by row: $1 in the condition is the time before which it counts as old. `least` is a floor that no
-- setting goes below. Written by migrations alone; a table that is not here keeps its rows.
CREATE TABLE fleet.retention (
    kind       text     PRIMARY KEY,
    table_name text     NOT NULL,
    key        text     NOT NULL,
    condition  text     NOT NULL,
    least      interval NOT NULL
);
INSERT INTO fleet.retention VALUES
('nonces', 'request_nonces', 'key_id, nonce', 't.seen_at < $1', '10 minutes'),
-- A row leaves when its entry is written; what is left of a closed job would be answered with CLOSED.
('outbox', 'outbox', 'job_id', 't.created_at < $1 AND EXISTS (SELECT FROM fleet.jobs j
    WHERE j.id = t.job_id AND j.closed_at < $1)', '1 day'),
('quotes', 'quotes', 'id', 't.id < fleet.first_id_at($1) AND t.intent_id IS NULL AND t.expires_at < $1', '1 day'),
('webhooks', 'webhook_deliveries', 'endpoint_id, position',
    't.created_at < $1 AND t.state <> ''PENDING'' AND t.ended_at < $1', '1 day'),
('alerts', 'alerts', 'id', 't.raised_at < $1 AND t.closed_at < $1', '30 days'),
('dead_letters', 'dead_letters', 'id', 't.received_at < $1 AND t.state = ''CLOSED'' AND t.closed_at < $1', '30 days'),
-- Not while something is undecided that it may be needed for.
('evidence', 'evidence', 'id', 't.received_at < $1
    AND NOT EXISTS (SELECT FROM fleet.jobs j WHERE j.id = t.job_id AND j.closed_at IS NULL)
    AND NOT EXISTS (SELECT FROM fleet.provider_payment_sources s JOIN fleet.provider_payments p ON p.id = s.payment_id
        WHERE s.evidence_id = t.id AND p.state IN (''NOTED'', ''SUSPENDED'') AND p.consumed_by IS NULL)
    AND NOT EXISTS (SELECT FROM fleet.redrives r WHERE r.evidence_id = t.id AND r.ended_at IS NULL)', '30 days');

CREATE INDEX evidence_by_age ON fleet.evidence USING brin (received_at);
CREATE INDEX webhook_deliveries_by_age ON fleet.webhook_deliveries USING brin (created_at);

-- How far history was dropped, a month at a time: what is older has none, and that is no fault.
CREATE TABLE fleet.lost_months (
    tenant_id  uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    table_name text        NOT NULL,
    month      text        NOT NULL,
    upto       uuid        NOT NULL,                  -- the first id that was kept
    lost_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, month)
);
SELECT fleet.confine_to_tenant('lost_months');
CREATE POLICY app_reads_system ON fleet.lost_months FOR SELECT TO fleet_app
    USING (tenant_id = '00000000-0000-0000-0000-000000000000');
GRANT SELECT ON fleet.lost_months TO fleet_app, fleet_worker;
GRANT SELECT ON fleet.retention TO fleet_worker;

-- Lose at most `most` rows of a kind, or only count them. Runs with the owner's rights: no process of ours has the
-- right to delete any of these rows, and the list above says which may go.
CREATE FUNCTION fleet.purge(p_kind text, before timestamptz, most integer, lose boolean) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    rule fleet.retention;
    done integer;
    chosen text;
BEGIN
    SELECT r.* INTO rule FROM fleet.retention r WHERE r.kind = p_kind;
    IF rule.kind IS NULL THEN
        RAISE EXCEPTION 'nothing of kind % may be lost', p_kind USING ERRCODE = 'restrict_violation';
    END IF;
    IF before > now() - rule.least THEN
        RAISE EXCEPTION '% are kept for % at least', p_kind, rule.least USING ERRCODE = 'restrict_violation';
    END IF;
    chosen := format('SELECT %s FROM fleet.%I t WHERE %s LIMIT %s', rule.key, rule.table_name, rule.condition, most);
    IF NOT lose THEN
        EXECUTE format('SELECT count(*) FROM (%s) old', chosen) INTO done USING before;
        RETURN done;
    END IF;
    EXECUTE format('DELETE FROM fleet.%I WHERE (%s) IN (%s FOR UPDATE SKIP LOCKED)', rule.table_name, rule.key, chosen)
        USING before;
    GET DIAGNOSTICS done = ROW_COUNT;
    RETURN done;
END $$;
REVOKE ALL ON FUNCTION fleet.purge FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.purge TO fleet_worker;

-- The months of events that lie wholly before a time, the oldest first, and why one must stay.
CREATE FUNCTION fleet.old_event_months(before timestamptz) RETURNS TABLE (month text, upto uuid, kept_because text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET timezone = 'UTC' AS $$
DECLARE
    part record;
    began timestamptz;
    newest bigint;
    youngest timestamptz;
BEGIN
    IF before > now() - interval '90 days' THEN
        RAISE EXCEPTION 'events are kept for 90 days at least' USING ERRCODE = 'restrict_violation';
    END IF;
    FOR part IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'fleet.intent_events'::regclass AND c.relname ~ '_p\d{6}$' ORDER BY c.relname
    LOOP
        began := to_date(right(part.relname, 6), 'YYYYMM')::timestamptz;
        CONTINUE WHEN began + interval '1 month' > before;
        month := right(part.relname, 6);
        upto := fleet.first_id_at(began + interval '1 month');
        EXECUTE format('SELECT max(position), max(at) FROM fleet.%I', part.relname) INTO newest, youngest;
        kept_because := CASE
            WHEN youngest >= before THEN 'an event of it is younger'
            WHEN EXISTS (SELECT FROM fleet.intents WHERE id >= fleet.first_id_at(began) AND id < upto
                AND state NOT IN ('SETTLED', 'FAILED', 'CANCELLED', 'EXPIRED')) THEN 'a payment of it is undecided'
            WHEN EXISTS (SELECT FROM fleet.webhook_endpoints WHERE deleted_at IS NULL AND enabled
                AND position < newest) THEN 'an endpoint has not reached its end'
            WHEN EXISTS (SELECT FROM fleet.webhook_deliveries WHERE state = 'PENDING'
                AND intent_id >= fleet.first_id_at(began) AND intent_id < upto) THEN 'a webhook of it waits'
        END;
        RETURN NEXT;
    END LOOP;
END $$;

-- Drop one month of events. Detaching waits for nobody: where a payment is under way, lock_not_available is raised.
CREATE FUNCTION fleet.lose_event_month(p_month text, before timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '500ms' AS $$
DECLARE
    found record;
BEGIN
    SELECT * INTO found FROM fleet.old_event_months(before) m WHERE m.month = p_month;
    IF found.month IS NULL OR found.kept_because IS NOT NULL THEN
        RAISE EXCEPTION 'the events of % stay: %', p_month, coalesce(found.kept_because, 'they are not old enough')
            USING ERRCODE = 'restrict_violation';
    END IF;
    EXECUTE format('ALTER TABLE fleet.intent_events DETACH PARTITION fleet.%I', 'intent_events_p' || p_month);
    EXECUTE format('DROP TABLE fleet.%I', 'intent_events_p' || p_month);
    INSERT INTO fleet.lost_months (table_name, month, upto) VALUES ('intent_events', p_month, found.upto);
END $$;
REVOKE ALL ON FUNCTION fleet.old_event_months, fleet.lose_event_month FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.old_event_months, fleet.lose_event_month TO fleet_worker;
