-- When adapters could last be given a permit: each API says so every few seconds. While none does, nothing is sent, and
-- nothing unsent expires. No row is an installation whose APIs do not say so yet.
CREATE TABLE fleet.permit_signs (
    tenant_id uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000' PRIMARY KEY,
    seen_at   timestamptz NOT NULL DEFAULT now()
);
SELECT fleet.confine_to_tenant('permit_signs');
GRANT SELECT, INSERT, UPDATE (seen_at) ON fleet.permit_signs TO fleet_worker;

ALTER TABLE fleet.rail_waits DROP CONSTRAINT rail_waits_cause_check;
ALTER TABLE fleet.rail_waits ADD CONSTRAINT rail_waits_cause_check CHECK (cause IN ('dispatch', 'breaker', 'permits'));
