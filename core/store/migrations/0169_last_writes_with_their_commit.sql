-- What a relay and a permit write last needs no answer: as a function of arrays it travels with the COMMIT, in one round
-- trip. And while a relay's note was written and not yet committed, whoever asked for a permit found the job locked.

-- Note that a relay put these jobs, sorted by id, into their stream: p_entries are their entries' ids, p_rounds the rounds
-- that were taken from the outbox, p_places where those rows lie, which the transaction holds locked.
-- p_first and p_last bound the ids of their intents.
-- A result may have settled the job, or put it into its next round, before this runs: only what is still READY in the
-- round that was taken is queued. What an entry of a relay that died has brought to the resolver stays there, but its
-- intent was dispatched.
-- Jobs are met by ANY of the ids within the bounds of their partitions, and joined to nothing: the planner believes an
-- array to be ten rows, and a partition that was just made to be one, and would compare each with each. What belongs to
-- a job is found by bisection: the ids come sorted, which also locks jobs in id order, as settlement does.
CREATE FUNCTION fleet.note_dispatched(
    p_ids uuid[], p_entries text[], p_rounds integer[], p_places tid[], p_epoch integer, p_first uuid, p_last uuid,
    p_actor text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    lowest  uuid := p_ids[1];
    highest uuid := p_ids[cardinality(p_ids)];
    woken   bigint;
BEGIN
    WITH gone AS (
        DELETE FROM fleet.outbox WHERE ctid = ANY (p_places)
    ), sent AS (
        UPDATE fleet.jobs j SET state = CASE j.state WHEN 'READY' THEN 'QUEUED' ELSE j.state END,
            entry_id = p_entries[width_bucket(j.id, p_ids)], stream_epoch = p_epoch, queued_at = now()
        WHERE j.id = ANY (p_ids) AND j.id BETWEEN lowest AND highest
            AND j.rounds = p_rounds[width_bucket(j.id, p_ids)] AND j.state <> 'CLOSED'
        RETURNING j.intent_id, j.kind
    ), moved AS (
        UPDATE fleet.intents i SET state = 'DISPATCHED', version = i.version + 1, updated_at = now()
        WHERE i.id = ANY (ARRAY(SELECT intent_id FROM sent WHERE kind IN ('pay', 'collect', 'refund')))
            AND i.id BETWEEN p_first AND p_last AND i.state = 'AUTHORIZED'
        RETURNING i.id, i.version, i.tenant_id, i.traceparent
    ), told AS (
        INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor, traceparent)
        SELECT id, version, tenant_id, 'dispatched', 'DISPATCHED', p_actor, traceparent FROM moved
    )
    SELECT count(pg_notify('fleet_events', '')) INTO woken FROM fleet.events_wanted_until
    WHERE last_value > extract(epoch FROM now());
END $$;
REVOKE ALL ON FUNCTION fleet.note_dispatched FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.note_dispatched TO fleet_worker;

-- Write the permits of locked jobs, sorted by id: their fences, each one more than the job's, and the attempts.
-- A fence that is not the next one was promised by mistake: then nothing is written.
CREATE FUNCTION fleet.write_permits(
    p_ids uuid[], p_fences integer[], p_modes text[], p_request uuid, p_incarnation uuid, p_busy interval,
    p_service_key text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    lowest  uuid := p_ids[1];
    highest uuid := p_ids[cardinality(p_ids)];
    written integer;
BEGIN
    WITH raised AS (
        UPDATE fleet.jobs j SET fence = j.fence + 1, permit_request = p_request, incarnation = p_incarnation,
            first_granted_at = coalesce(j.first_granted_at, clock_timestamp()),
            busy_until = clock_timestamp() + p_busy
        WHERE j.id = ANY (p_ids) AND j.id BETWEEN lowest AND highest
            AND j.fence + 1 = p_fences[width_bucket(j.id, p_ids)]
        RETURNING j.id, j.fence, j.tenant_id, p_modes[width_bucket(j.id, p_ids)] AS mode, j.reference,
            j.provider_account, j.environment
    )
    INSERT INTO fleet.attempts (job_id, fence, tenant_id, mode, reference, provider_account, environment,
        service_key_id, incarnation, request_id)
    SELECT id, fence, tenant_id, mode, reference, provider_account, environment, p_service_key, p_incarnation, p_request
    FROM raised;
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> cardinality(p_ids) THEN
        RAISE EXCEPTION '% of % permits could be written', written, cardinality(p_ids);
    END IF;
END $$;
REVOKE ALL ON FUNCTION fleet.write_permits FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.write_permits TO fleet_worker;
