-- Who may do what with the tables of payments: rows by tenant, columns by role, history by nobody.

-- Partitions carry storage settings of their own: a partitioned parent cannot.
ALTER TABLE fleet.partitioned_tables ADD COLUMN storage text;

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
    IF parent.insert_guard IS NOT NULL THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER insert_guard AFTER INSERT ON fleet.%I REFERENCING NEW TABLE AS inserted
                        FOR EACH STATEMENT EXECUTE FUNCTION fleet.%I()', table_name, parent.insert_guard);
    END IF;
    IF parent.storage IS NOT NULL AND guard_table.table_name <> parent.table_name THEN
        EXECUTE format('ALTER TABLE fleet.%I SET (%s)', table_name, parent.storage);
    END IF;
END $$;

-- Intents and jobs change state a few times: room on the page keeps those updates heap-only.
INSERT INTO fleet.partitioned_tables (table_name, append_only, storage) VALUES
    ('intents', false, 'fillfactor = 80'),
    ('intent_events', true, NULL),
    ('jobs', false, 'fillfactor = 80'),
    ('attempts', false, 'fillfactor = 90'),
    ('facts', false, 'fillfactor = 90');
SELECT fleet.ensure_partitions(1, 3);

-- A queue in a table is all churn: vacuum by count, not by share, and without naps.
ALTER TABLE fleet.outbox SET (autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0.0,
    autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_threshold = 20000);

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY[
    'service_keys', 'request_nonces', 'idempotency_keys', 'wallets', 'subjects', 'routes', 'rail_registrations',
    'rail_pauses', 'stream_epochs', 'ledger_epochs', 'intents', 'intent_events', 'jobs', 'outbox', 'attempts',
    'facts', 'evidence', 'dead_letters', 'alerts']) t;

-- Rails and epochs serve every tenant: their rows are the system's, and every tenant may read them.
CREATE POLICY app_reads_system ON fleet.rail_registrations FOR SELECT TO fleet_app
    USING (tenant_id = '00000000-0000-0000-0000-000000000000');
CREATE POLICY app_reads_system ON fleet.rail_pauses FOR SELECT TO fleet_app
    USING (tenant_id = '00000000-0000-0000-0000-000000000000');
CREATE POLICY app_reads_system ON fleet.ledger_epochs FOR SELECT TO fleet_app
    USING (tenant_id = '00000000-0000-0000-0000-000000000000');

-- Both roles: what accepting, confirming, cancelling and settling write. Nothing here may be deleted.
GRANT SELECT, INSERT ON fleet.idempotency_keys, fleet.wallets, fleet.subjects, fleet.intents, fleet.intent_events,
    fleet.jobs, fleet.service_keys, fleet.routes, fleet.alerts TO fleet_app, fleet_worker;
GRANT SELECT ON fleet.rail_registrations, fleet.rail_pauses, fleet.ledger_epochs, fleet.attempts, fleet.facts,
    fleet.dead_letters TO fleet_app, fleet_worker;
GRANT SELECT, INSERT, DELETE ON fleet.outbox TO fleet_app, fleet_worker;
GRANT UPDATE (state, version, updated_at, failure_code, failure_message, decision, provider_reference, fee_minor,
    lookup, deadline, parked_at) ON fleet.intents TO fleet_app, fleet_worker;
GRANT UPDATE (state, closed_at, outcome, next_check_at, tombstoned) ON fleet.jobs TO fleet_app, fleet_worker;
GRANT UPDATE (secret, secret_next, rotated_at, revoked_at) ON fleet.service_keys TO fleet_app, fleet_worker;
GRANT UPDATE (wrapped_key, erased_at) ON fleet.subjects TO fleet_app, fleet_worker;
GRANT UPDATE (enabled) ON fleet.routes TO fleet_app, fleet_worker;

-- Background work and the internal API alone. A job's money, reference and payee never change after its birth.
GRANT UPDATE (fence, first_granted_at, busy_until, permit_request, incarnation, failures, inquiries, not_before,
    deadline, entry_id, stream_epoch, queued_at, ledger_epoch) ON fleet.jobs TO fleet_worker;
GRANT UPDATE (ledger_epoch) ON fleet.intents TO fleet_worker;
GRANT UPDATE (not_before) ON fleet.outbox TO fleet_worker;
GRANT SELECT, INSERT, DELETE ON fleet.request_nonces, fleet.rail_pauses TO fleet_worker;
GRANT INSERT ON fleet.rail_registrations, fleet.attempts, fleet.facts, fleet.dead_letters TO fleet_worker;
GRANT UPDATE (negative_at) ON fleet.attempts TO fleet_worker;
GRANT UPDATE (applied_at, quarantine) ON fleet.facts TO fleet_worker;
GRANT SELECT, INSERT ON fleet.evidence, fleet.stream_epochs, fleet.ledger_epochs TO fleet_worker;
GRANT UPDATE (epoch, token, raised_at) ON fleet.stream_epochs TO fleet_worker;
GRANT UPDATE (cleared_at) ON fleet.ledger_epochs TO fleet_worker;
GRANT UPDATE (state) ON fleet.dead_letters TO fleet_worker;
GRANT UPDATE (closed_at) ON fleet.alerts TO fleet_worker;
GRANT EXECUTE ON FUNCTION fleet.first_id_at TO fleet_app, fleet_worker;
