-- What a second person agreed to is what the snapshot was when it was asked for: a letter that came into doubt since is
-- skipped. A redrive of the release before goes on as it began: its letters count as approved.
ALTER TABLE fleet.redrive_items ADD COLUMN doubted boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN fleet.redrive_items.doubted IS 'It was INQUIRE_FIRST when the redrive was asked for, and so was approved as that.';
GRANT UPDATE (doubted) ON fleet.redrive_items TO fleet_worker;

-- The newest known outcomes: a provider that fails now is seen through any number of earlier successes.
CREATE INDEX redrive_items_known ON fleet.redrive_items (redrive_id, place) WHERE state IN ('SUCCEEDED', 'FAILED');
CREATE INDEX redrives_by_asker ON fleet.redrives (asked_by, created_at) WHERE decided_by IS NULL;
