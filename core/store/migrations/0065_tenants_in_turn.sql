-- The relay takes due jobs of each tenant in turn: it reads the outbox by tenant, and then by time.
DROP INDEX fleet.outbox_due;
CREATE INDEX outbox_due ON fleet.outbox (stream, tenant_id, not_before);
