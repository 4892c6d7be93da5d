-- The journal of what people did: append-only, each entry hashed over the one before it, a chain per tenant.

CREATE TABLE fleet.audit_entries (
    tenant_id uuid        NOT NULL,
    seq       bigint      NOT NULL CHECK (seq > 0),
    at        timestamptz NOT NULL,
    actor     text        NOT NULL,
    action    text        NOT NULL,
    subject   text        NOT NULL,
    data      text        NOT NULL,                   -- JSON, kept as the text that was hashed
    hash      bytea       NOT NULL,
    PRIMARY KEY (tenant_id, seq)
);
CREATE INDEX audit_entries_by_subject ON fleet.audit_entries (subject, tenant_id, seq);
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON fleet.audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_change();

-- Where each chain ends: an entry that was cut off the end is missed.
CREATE TABLE fleet.audit_heads (
    tenant_id uuid   PRIMARY KEY,
    seq       bigint NOT NULL DEFAULT 0,
    hash      bytea  NOT NULL DEFAULT '\x'
) WITH (fillfactor = 50);

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['audit_entries', 'audit_heads']) t;
GRANT SELECT ON fleet.audit_entries, fleet.audit_heads TO fleet_app, fleet_worker;

-- Append entries in their order. The parts of an entry are hashed apart before they are hashed together, so that no
-- text can be moved from one to the next.
CREATE FUNCTION fleet.audit_append(
    p_tenants uuid[], p_actors text[], p_actions text[], p_subjects text[], p_data text[]
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    own   text := current_setting('fleet.tenant', true);
    head  fleet.audit_heads;
    entry record;
    moment timestamptz;
BEGIN
    IF NOT pg_has_role(session_user, 'fleet_worker', 'MEMBER')
        AND (coalesce(own, '') = '' OR EXISTS (SELECT FROM unnest(p_tenants) t WHERE t <> own::uuid)) THEN
        RAISE EXCEPTION 'an audit entry of another tenant than the transaction''s'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO fleet.audit_heads (tenant_id) SELECT DISTINCT t FROM unnest(p_tenants) t ORDER BY t
    ON CONFLICT DO NOTHING;
    FOR head IN SELECT * FROM fleet.audit_heads WHERE tenant_id = ANY (p_tenants) ORDER BY tenant_id FOR UPDATE LOOP
        -- After the lock: times of one chain never run backwards by more than the clock does.
        moment := clock_timestamp();
        FOR entry IN
            SELECT a.* FROM unnest(p_tenants, p_actors, p_actions, p_subjects, p_data) WITH ORDINALITY
                AS a(tenant_id, actor, action, subject, data, place)
            WHERE a.tenant_id = head.tenant_id ORDER BY a.place
        LOOP
            head.seq := head.seq + 1;
            head.hash := sha256(head.hash
                || sha256(convert_to(head.tenant_id::text, 'UTF8')) || sha256(convert_to(head.seq::text, 'UTF8'))
                || sha256(convert_to(((extract(epoch FROM moment) * 1000000)::bigint)::text, 'UTF8'))
                || sha256(convert_to(entry.actor, 'UTF8')) || sha256(convert_to(entry.action, 'UTF8'))
                || sha256(convert_to(entry.subject, 'UTF8')) || sha256(convert_to(entry.data, 'UTF8')));
            INSERT INTO fleet.audit_entries (tenant_id, seq, at, actor, action, subject, data, hash)
            VALUES (head.tenant_id, head.seq, moment, entry.actor, entry.action, entry.subject, entry.data, head.hash);
        END LOOP;
        UPDATE fleet.audit_heads SET seq = head.seq, hash = head.hash WHERE tenant_id = head.tenant_id;
    END LOOP;
    RETURN cardinality(p_tenants);
END $$;
REVOKE ALL ON FUNCTION fleet.audit_append FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.audit_append TO fleet_app, fleet_worker;

-- What is set for others is journalled by the database, whichever way it was changed: one entry per statement and
-- tenant. Few rows are told whole, but for secrets; of many, how many.
CREATE FUNCTION fleet.audit_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    actor text := coalesce(nullif(current_setting('fleet.actor', true), ''),
        session_user || ' by ' || coalesce(nullif(current_setting('application_name', true), ''), 'an unnamed program'));
BEGIN
    PERFORM fleet.audit_append(array_agg(c.tenant_id), array_agg(actor), array_agg(lower(TG_OP)),
            array_agg(TG_TABLE_NAME::text), array_agg(c.told))
        FROM (
            SELECT e.tenant_id, jsonb_build_object('count', count(*), 'rows', CASE WHEN count(*) <= 20
                THEN jsonb_agg(to_jsonb(e) - 'secret' - 'secret_next' - 'tenant_id') END)::text AS told
            FROM changed e GROUP BY e.tenant_id
        ) c
        HAVING count(*) > 0;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION fleet.audit_change FROM PUBLIC;

DO $$
DECLARE
    audited text;
BEGIN
    FOREACH audited IN ARRAY ARRAY['tenants', 'service_keys', 'routes', 'limits', 'fee_rules', 'exchange_pairs',
        'exchange_rates', 'rail_pauses', 'ledger_epochs'] LOOP
        EXECUTE format('CREATE TRIGGER audit_insert AFTER INSERT ON fleet.%I REFERENCING NEW TABLE AS changed
            FOR EACH STATEMENT EXECUTE FUNCTION fleet.audit_change()', audited);
        EXECUTE format('CREATE TRIGGER audit_update AFTER UPDATE ON fleet.%I REFERENCING NEW TABLE AS changed
            FOR EACH STATEMENT EXECUTE FUNCTION fleet.audit_change()', audited);
        EXECUTE format('CREATE TRIGGER audit_delete AFTER DELETE ON fleet.%I REFERENCING OLD TABLE AS changed
            FOR EACH STATEMENT EXECUTE FUNCTION fleet.audit_change()', audited);
    END LOOP;
END $$;
