-- A reference that is in no file can be buried: it takes the place that a live file would have, so none ever holds it.

ALTER TABLE fleet.rail_files DROP CONSTRAINT rail_files_state_check;
ALTER TABLE fleet.rail_files ADD CONSTRAINT rail_files_state_check CHECK (state IN ('LIVE', 'GIVEN_UP', 'BURIED'));
