-- Entries in a schema version that nobody could read yet: kept whole, and added again once somebody can.
CREATE TABLE fleet.parked_entries (
    stream         text        NOT NULL,
    entry_id       text        NOT NULL,
    tenant_id      uuid        NOT NULL,
    rail           text        NOT NULL,
    job_id         uuid,
    schema_version smallint    NOT NULL,
    fields         bytea       NOT NULL,              -- raw, encrypted under the master key
    parked_at      timestamptz NOT NULL DEFAULT now(),
    readded_at     timestamptz,                       -- also set, without an id, where the job was closed meanwhile
    readded_as     text,
    PRIMARY KEY (stream, entry_id)
);
CREATE INDEX parked_entries_waiting ON fleet.parked_entries (stream, parked_at) WHERE readded_at IS NULL;
SELECT fleet.confine_to_tenant('parked_entries');
GRANT SELECT, INSERT ON fleet.parked_entries TO fleet_worker;
GRANT UPDATE (readded_at, readded_as) ON fleet.parked_entries TO fleet_worker;
