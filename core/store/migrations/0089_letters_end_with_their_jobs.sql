-- A dead letter ends with what it is about: whichever way a job closes, its open letters close in the same transaction,
-- with the reason, and the journal says so. A letter of a result stays: it may tell of money that nobody has booked.

ALTER TABLE fleet.dead_letters ADD COLUMN closed_because text NOT NULL DEFAULT '';
GRANT UPDATE (closed_because) ON fleet.dead_letters TO fleet_worker;

-- Whether a letter was ever kept for the job: closing any other job costs nothing more.
ALTER TABLE fleet.jobs ADD COLUMN died boolean NOT NULL DEFAULT false;
GRANT UPDATE (died) ON fleet.jobs TO fleet_worker;

-- Close the open letters of those of these jobs that are closed. Returns how many.
CREATE FUNCTION fleet.close_letters_of(p_jobs uuid[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    actor text := coalesce(nullif(current_setting('fleet.actor', true), ''), 'core');
    ended integer;
BEGIN
    WITH closing AS (
        SELECT d.id, j.intent_id, CASE WHEN i.state IN ('SETTLED', 'FAILED', 'CANCELLED', 'EXPIRED')
            THEN 'its payment is ' || i.state ELSE 'its job is closed' END || coalesce(': ' || j.outcome, '') AS because
        FROM fleet.dead_letters d JOIN fleet.jobs j ON j.id = d.job_id AND j.rail = d.rail
        LEFT JOIN fleet.intents i ON i.id = j.intent_id
        WHERE d.job_id = ANY (p_jobs) AND d.state = 'OPEN' AND d.stream NOT LIKE '%:results' AND j.closed_at IS NOT NULL
        ORDER BY d.id FOR NO KEY UPDATE OF d
    ), closed AS (
        UPDATE fleet.dead_letters d SET state = 'CLOSED', closed_at = now(), closed_because = c.because
        FROM closing c WHERE d.id = c.id
        RETURNING d.tenant_id, c.intent_id, jsonb_build_object('letter', d.id, 'because', c.because)::text AS data
    )
    SELECT fleet.audit_append(array_agg(c.tenant_id), array_agg(actor), array_agg('letter_closed'::text),
        array_agg('intent:' || c.intent_id), array_agg(c.data))
    INTO ended FROM closed c HAVING count(*) > 0;
    RETURN coalesce(ended, 0);
END $$;
REVOKE ALL ON FUNCTION fleet.close_letters_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.close_letters_of TO fleet_worker;

-- At the commit: the journal's lock comes after every other, and the intent has its end by then.
CREATE FUNCTION fleet.close_letters() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM fleet.close_letters_of(ARRAY[NEW.id]);
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION fleet.close_letters FROM PUBLIC;
CREATE CONSTRAINT TRIGGER close_letters AFTER UPDATE OF closed_at ON fleet.jobs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.died AND OLD.closed_at IS NULL AND NEW.closed_at IS NOT NULL)
    EXECUTE FUNCTION fleet.close_letters();

-- What was kept before: letters of open jobs are known to their jobs, those of closed ones end now.
UPDATE fleet.jobs j SET died = true
WHERE j.closed_at IS NULL AND j.id IN (SELECT job_id FROM fleet.dead_letters WHERE state = 'OPEN');
SELECT fleet.close_letters_of(ARRAY(SELECT job_id FROM fleet.dead_letters WHERE state = 'OPEN' AND job_id IS NOT NULL));
