-- Row security for the owner of the tables too. Functions with the owner's rights serve every tenant, and judge for
-- themselves whom they serve; whoever takes the owner's role by hand sees the tenant that is named, as the application
-- does, or says that every one is meant (SET LOCAL fleet.every_tenant = 'on', as the migrations' runner does).

-- Within such a function the owner acts, and nobody has asked for its role.
CREATE FUNCTION fleet.confine_owner(table_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('ALTER TABLE fleet.%I ENABLE ROW LEVEL SECURITY', table_name);
    EXECUTE format('ALTER TABLE fleet.%I FORCE ROW LEVEL SECURITY', table_name);
    -- In parentheses of their own: asked once for a statement, not once for each row.
    EXECUTE format($p$CREATE POLICY owner_tenant ON fleet.%I TO fleet_owner USING (
        (SELECT current_user = 'fleet_owner' AND current_setting('role') <> 'fleet_owner'
            OR current_setting('fleet.every_tenant', true) = 'on')
        OR tenant_id = (SELECT nullif(current_setting('fleet.tenant', true), '')::uuid))$p$, table_name);
END $$;
REVOKE ALL ON FUNCTION fleet.confine_owner FROM PUBLIC;

CREATE OR REPLACE FUNCTION fleet.confine_to_tenant(table_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format($p$CREATE POLICY app_tenant ON fleet.%I TO fleet_app
        USING (tenant_id = nullif(current_setting('fleet.tenant', true), '')::uuid)
        WITH CHECK (tenant_id = nullif(current_setting('fleet.tenant', true), '')::uuid)$p$, table_name);
    EXECUTE format('CREATE POLICY worker_all ON fleet.%I TO fleet_worker USING (true) WITH CHECK (true)', table_name);
    PERFORM fleet.confine_owner(table_name);
END $$;

-- A part is asked by its own name only by its owner: neither role has a right to it.
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
    IF guard_table.table_name <> parent.table_name THEN
        PERFORM fleet.confine_owner(table_name);
    END IF;
END $$;

SELECT fleet.confine_owner(c.relname) FROM pg_class c
WHERE c.relnamespace = 'fleet'::regnamespace AND c.relkind IN ('r', 'p') AND EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped);
