-- Routes of one rail stand together under names, such as one for each band of amounts; a version replaces its own name's.
-- Several may begin at one moment. Who sets one holds the tenant's lock, which keeps a repeat from being a second one.
ALTER TABLE fleet.routes
    ADD COLUMN name text NOT NULL DEFAULT 'main' CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$');
ALTER TABLE fleet.routes DROP CONSTRAINT routes_tenant_id_operation_currency_rail_valid_from_key;
CREATE INDEX routes_of_tenant ON fleet.routes (tenant_id, operation, currency, rail, name, valid_from);
