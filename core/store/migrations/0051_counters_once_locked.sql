-- Add to counters that this transaction has locked already: looking for each row once more costs a payment as much as
-- writing it. One row for each counter; false where one of them is missing.
CREATE FUNCTION fleet.move_locked_limit_usage(
    p_limits uuid[], p_subjects text[], p_periods date[],
    p_held_minor bigint[], p_used_minor bigint[], p_held_count integer[], p_used_count integer[]
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    written integer;
BEGIN
    UPDATE fleet.limit_usage u SET
        held_minor = u.held_minor + k.held_minor, used_minor = u.used_minor + k.used_minor,
        held_count = u.held_count + k.held_count, used_count = u.used_count + k.used_count
    FROM unnest(p_limits, p_subjects, p_periods, p_held_minor, p_used_minor, p_held_count, p_used_count)
        AS k(limit_id, subject, period, held_minor, used_minor, held_count, used_count)
    WHERE u.limit_id = k.limit_id AND u.subject = k.subject COLLATE "C" AND u.period = k.period;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written = cardinality(p_limits);
END $$;
REVOKE ALL ON FUNCTION fleet.move_locked_limit_usage FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.move_locked_limit_usage TO fleet_app, fleet_worker;
