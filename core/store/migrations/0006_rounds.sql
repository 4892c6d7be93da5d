-- A job may be due again before the relay's note about its last round is committed. With the round in the key
-- neither waits for the other's row: the new round is a row of its own, and the late note changes nothing.
ALTER TABLE fleet.jobs ADD COLUMN rounds integer NOT NULL DEFAULT 0;
ALTER TABLE fleet.outbox ADD COLUMN round integer NOT NULL DEFAULT 0;
ALTER TABLE fleet.outbox DROP CONSTRAINT outbox_pkey, ADD PRIMARY KEY (job_id, round);
GRANT UPDATE (rounds) ON fleet.jobs TO fleet_worker;
