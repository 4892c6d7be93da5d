-- How far the completer has come: the next start begins behind what the last whole walk has seen ended, however long ago.
CREATE TABLE fleet.recovery_walks (
    tenant_id   uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    is_last     boolean     PRIMARY KEY DEFAULT true CHECK (is_last),
    begun_at    timestamptz NOT NULL,
    ended_at    timestamptz NOT NULL,
    scanned     bigint      NOT NULL CHECK (scanned >= 0),
    oldest_open uuid                          -- the oldest intent that had not ended then
);
SELECT fleet.confine_to_tenant('recovery_walks');
GRANT SELECT, INSERT ON fleet.recovery_walks TO fleet_worker;
GRANT UPDATE (begun_at, ended_at, scanned, oldest_open) ON fleet.recovery_walks TO fleet_worker;
