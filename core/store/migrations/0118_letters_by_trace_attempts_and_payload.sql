-- Dead letters are found by their trace, by the permits that were given before they died, and by words of what is shown
-- of their payload; what was received about a job is found without a walk over everything that ever was.

ALTER TABLE fleet.dead_letters ADD COLUMN permits integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN fleet.dead_letters.permits IS 'How many permits its job had when it died; later ones are told by the attempts.';
UPDATE fleet.dead_letters d SET permits = j.fence FROM fleet.jobs j WHERE j.id = d.job_id AND j.rail = d.rail AND j.fence > 0;

-- What is shown of a payload is words as well. The column `words` stays for the release before, and goes after it.
ALTER TABLE fleet.dead_letters ADD COLUMN searched tsvector GENERATED ALWAYS AS (
    to_tsvector('simple'::regconfig, message || ' ' || error_class || ' ' || reference)
    || jsonb_to_tsvector('simple'::regconfig, payload, '["string", "numeric"]')) STORED;
CREATE INDEX dead_letters_by_searched ON fleet.dead_letters USING gin (searched) WITH (fastupdate = off);
DROP INDEX fleet.dead_letters_by_words;

CREATE INDEX dead_letters_by_trace ON fleet.dead_letters ((split_part(traceparent, '-', 2)), received_at, id)
    WHERE traceparent IS NOT NULL;
CREATE INDEX dead_letters_by_permits ON fleet.dead_letters (state, permits, received_at, id);
CREATE INDEX evidence_by_job ON fleet.evidence (job_id) WHERE job_id IS NOT NULL;
