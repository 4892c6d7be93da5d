-- An alert is closed by a person, who says why; of one that pages, which is one about money, a second person agrees.
-- contract: closed_by is new, so the release before writes no row that the check refuses
ALTER TABLE fleet.alerts
    ADD COLUMN proposed_by    text,
    ADD COLUMN proposed_at    timestamptz,
    ADD COLUMN closed_because text NOT NULL DEFAULT '',
    ADD COLUMN closed_by      text CHECK (closed_by IS NULL OR (closed_because <> ''
        AND (severity <> 'page' OR (proposed_by IS NOT NULL AND proposed_by <> closed_by))));
GRANT UPDATE (proposed_by, proposed_at, closed_by, closed_because) ON fleet.alerts TO fleet_worker;
CREATE INDEX alerts_by_time ON fleet.alerts (raised_at, id);
CREATE INDEX alerts_by_intent ON fleet.alerts (intent_id) WHERE intent_id IS NOT NULL;
