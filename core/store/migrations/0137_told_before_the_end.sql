-- A provider may tell that a payment was paid while it is still open here, and its refusal, on its way, may yet end it; or
-- that a payment which settled came back. Both are found by the reference, whatever the state of the job: one index over
-- all of them takes the place of the one over those that ended otherwise.
CREATE INDEX jobs_by_reference ON fleet.jobs (reference) WHERE kind IN ('pay', 'refund');
DROP INDEX fleet.jobs_ended_otherwise;

ALTER TABLE fleet.doubted_ends ADD COLUMN told_of text NOT NULL DEFAULT 'PAID' CHECK (told_of IN ('PAID', 'RETURNED'));
GRANT UPDATE (told_of) ON fleet.doubted_ends TO fleet_worker;
-- What was told of while it was open, and was then settled, was never in doubt.
GRANT DELETE ON fleet.doubted_ends TO fleet_worker;
