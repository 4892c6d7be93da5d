-- Letters are found by all that they are narrowed to at once. An index of their marks is met with itself and with the
-- words, so that what never meets is known without reading a letter. A letter's time is marked by the minute, the hour
-- and the day: the newest of many are found from the newest of these on. Who asks repeats the function and its arguments.
CREATE FUNCTION fleet.letter_marks(
    state text, tenant_id uuid, rail text, error_class text, fingerprint text, operation text, provider text,
    permits integer, received_at timestamptz
) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['state:' || state, 'tenant_id:' || tenant_id::text, 'rail:' || rail, 'error_class:' || error_class,
        'fingerprint:' || fingerprint, 'operation:' || coalesce(operation, ''), 'provider:' || coalesce(provider, ''),
        'permits:' || permits::text,
        'at60:' || floor(extract(epoch FROM received_at AT TIME ZONE 'UTC') / 60)::bigint::text,
        'at3600:' || floor(extract(epoch FROM received_at AT TIME ZONE 'UTC') / 3600)::bigint::text,
        'at86400:' || floor(extract(epoch FROM received_at AT TIME ZONE 'UTC') / 86400)::bigint::text]
$$;
REVOKE ALL ON FUNCTION fleet.letter_marks FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.letter_marks TO fleet_app, fleet_worker;

CREATE INDEX dead_letters_by_marks ON fleet.dead_letters USING gin (
    fleet.letter_marks(state, tenant_id, rail, error_class, fingerprint, operation, provider, permits, received_at),
    searched
) WITH (fastupdate = off);
-- The words are in the index above too.
DROP INDEX fleet.dead_letters_by_searched;
