-- Take what a whole batch asks of its counters, where all of it fits: then every part of it fits in every order, and
-- nothing is read, decided and written one by one. False, and nothing changed, where a counter has not room enough.
-- A batch asks few limits: p_limits has each once with its period, and a counter its place among them. Sums that are the
-- same for all counters are one element.
-- Counters are met in the one order (limit, subject, period), whether they exist or not: who waits here holds none that
-- comes later. Runs with the owner's rights, so that row security is not asked row by row.
CREATE FUNCTION fleet.take_limit_usage(
    p_tenants uuid[], p_limits uuid[], p_periods date[], p_max_minor bigint[], p_max_count integer[],
    p_places integer[], p_subjects text[],
    p_held_minor bigint[], p_used_minor bigint[], p_held_count integer[], p_used_count integer[]
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    own      text := current_setting('fleet.tenant', true);
    expected integer := cardinality(p_subjects);
    whole    integer[] := ARRAY[cardinality(p_subjects)];
    written  integer;
BEGIN
    IF NOT pg_has_role(session_user, 'fleet_worker', 'MEMBER')
        AND (coalesce(own, '') = '' OR EXISTS (SELECT FROM unnest(p_tenants) t WHERE t <> own::uuid)) THEN
        RAISE EXCEPTION 'a counter of another tenant than the transaction''s' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF cardinality(p_held_minor) < expected THEN p_held_minor := array_fill(p_held_minor[1], whole); END IF;
    IF cardinality(p_used_minor) < expected THEN p_used_minor := array_fill(p_used_minor[1], whole); END IF;
    IF cardinality(p_held_count) < expected THEN p_held_count := array_fill(p_held_count[1], whole); END IF;
    IF cardinality(p_used_count) < expected THEN p_used_count := array_fill(p_used_count[1], whole); END IF;
    INSERT INTO fleet.limit_usage AS u (tenant_id, limit_id, subject, period,
        held_minor, used_minor, held_count, used_count)
    SELECT p_tenants[k.place], p_limits[k.place], k.subject, p_periods[k.place],
        k.held_minor, k.used_minor, k.held_count, k.used_count
    FROM unnest(p_places, p_subjects, p_held_minor, p_used_minor, p_held_count, p_used_count)
        AS k(place, subject, held_minor, used_minor, held_count, used_count)
    WHERE coalesce(k.held_minor + k.used_minor <= p_max_minor[k.place], true)
        AND coalesce(k.held_count + k.used_count <= p_max_count[k.place], true)
    ORDER BY p_limits[k.place], k.subject COLLATE "C", p_periods[k.place]
    ON CONFLICT (limit_id, subject, period) DO UPDATE SET
        held_minor = u.held_minor + excluded.held_minor, used_minor = u.used_minor + excluded.used_minor,
        held_count = u.held_count + excluded.held_count, used_count = u.used_count + excluded.used_count
    WHERE u.tenant_id = excluded.tenant_id
        AND coalesce(u.held_minor + u.used_minor + excluded.held_minor + excluded.used_minor
            <= p_max_minor[array_position(p_limits, excluded.limit_id)], true)
        AND coalesce(u.held_count::bigint + u.used_count + excluded.held_count + excluded.used_count
            <= p_max_count[array_position(p_limits, excluded.limit_id)], true);
    GET DIAGNOSTICS written = ROW_COUNT;
    IF written <> expected THEN RAISE SQLSTATE 'FL001'; END IF;
    RETURN true;
EXCEPTION
    WHEN SQLSTATE 'FL001' THEN RETURN false;
END $$;

-- The same order for who decides one by one, and must not wait for a counter that is being made while it holds a later
-- one: a counter is made or locked in one pass, instead of all that are missing before all that exist.
CREATE OR REPLACE FUNCTION fleet.lock_limit_usage(
    p_tenants uuid[], p_limits uuid[], p_subjects text[], p_periods date[]
) RETURNS TABLE (limit_id uuid, subject text, period date, amount_minor bigint, count bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    INSERT INTO fleet.limit_usage AS u (tenant_id, limit_id, subject, period)
    SELECT k.* FROM unnest(p_tenants, p_limits, p_subjects, p_periods) AS k(tenant_id, limit_id, subject, period)
    ORDER BY k.limit_id, k.subject COLLATE "C", k.period
    ON CONFLICT (limit_id, subject, period) DO UPDATE SET held_minor = u.held_minor
    RETURNING u.limit_id, u.subject, u.period, u.held_minor + u.used_minor, u.held_count::bigint + u.used_count;
END $$;
REVOKE ALL ON FUNCTION fleet.take_limit_usage FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.take_limit_usage TO fleet_app, fleet_worker;
