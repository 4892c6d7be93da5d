-- An adapter that runs and does not reach the core says so through the streams: nobody can ask it for a permit meanwhile.
ALTER TABLE fleet.rail_waits DROP CONSTRAINT rail_waits_cause_check;
ALTER TABLE fleet.rail_waits ADD CONSTRAINT rail_waits_cause_check
    CHECK (cause IN ('dispatch', 'breaker', 'permits', 'adapters'));

-- Whom a day's register was asked of: where the answer was lost, whoever asks again is told again.
ALTER TABLE fleet.register_days ADD COLUMN leased_by uuid;
GRANT UPDATE (leased_by) ON fleet.register_days TO fleet_worker;
