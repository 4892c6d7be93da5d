-- Money is made or taken by hand by two keys, above an amount that the tenant's operator sets; 0 is every such payment.
ALTER TABLE fleet.tenants
    ADD COLUMN adjusts_alone_minor bigint NOT NULL DEFAULT 0 CHECK (adjusts_alone_minor >= 0);
GRANT UPDATE (adjusts_alone_minor) ON fleet.tenants TO fleet_worker;
