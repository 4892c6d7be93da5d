-- Automatic voids of each minute over every resolver: above a rate they stop, and a person is told once.
CREATE TABLE fleet.void_minutes (
    tenant_id uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    minute    timestamptz PRIMARY KEY,
    voided    integer     NOT NULL DEFAULT 0 CHECK (voided >= 0),
    refused   integer     NOT NULL DEFAULT 0 CHECK (refused >= 0)
);
SELECT fleet.confine_to_tenant('void_minutes');
GRANT SELECT, INSERT ON fleet.void_minutes TO fleet_worker;
GRANT UPDATE (voided, refused) ON fleet.void_minutes TO fleet_worker;

-- Cancelling skips outbox rows that a relay holds, and SKIP LOCKED needs a right to update.
GRANT UPDATE (not_before) ON fleet.outbox TO fleet_app;
