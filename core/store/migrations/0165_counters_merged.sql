-- Counters are taken by MERGE: it finds a counter and changes it, where ON CONFLICT looked for it, locked it, and wrote
-- that in the log, before it changed it. An eighth less of what the server does for a batch's limits.

-- Take what a whole batch asks of its counters, where all of it fits: then every part of it fits in every order, and
-- nothing is read, decided and written one by one. False, and nothing changed, where a counter has not room enough.
-- A batch asks few limits: p_limits has each once with its period, and a counter its place among them. Sums that are the
-- same for all counters are one element.
-- Counters are met in the one order (limit, subject, period), whether they exist or not: who waits here holds none that
-- comes later. What is off leaves one plan, which goes through the sorted counters and looks each up by its key.
-- Runs with the owner's rights, so that row security is not asked row by row.
CREATE OR REPLACE FUNCTION fleet.take_limit_usage(
    p_tenants uuid[], p_limits uuid[], p_periods date[], p_max_minor bigint[], p_max_count integer[],
    p_places integer[], p_subjects text[],
    p_held_minor bigint[], p_used_minor bigint[], p_held_count integer[], p_used_count integer[]
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
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
    FOR attempt IN 1 .. 5 LOOP
        BEGIN
            MERGE INTO fleet.limit_usage AS u
            USING (
                SELECT p_tenants[k.place] AS tenant_id, p_limits[k.place] AS limit_id, k.subject COLLATE "C" AS subject,
                    p_periods[k.place] AS period, p_max_minor[k.place] AS max_minor, p_max_count[k.place] AS max_count,
                    k.held_minor, k.used_minor, k.held_count, k.used_count
                FROM unnest(p_places, p_subjects, p_held_minor, p_used_minor, p_held_count, p_used_count)
                    AS k(place, subject, held_minor, used_minor, held_count, used_count)
                ORDER BY p_limits[k.place], k.subject COLLATE "C", p_periods[k.place]
            ) AS n ON u.limit_id = n.limit_id AND u.subject = n.subject AND u.period = n.period
            WHEN MATCHED AND u.tenant_id = n.tenant_id
                AND coalesce(u.held_minor + u.used_minor + n.held_minor + n.used_minor <= n.max_minor, true)
                AND coalesce(u.held_count::bigint + u.used_count + n.held_count + n.used_count <= n.max_count, true)
                THEN UPDATE SET
                    held_minor = u.held_minor + n.held_minor, used_minor = u.used_minor + n.used_minor,
                    held_count = u.held_count + n.held_count, used_count = u.used_count + n.used_count
            WHEN NOT MATCHED AND coalesce(n.held_minor + n.used_minor <= n.max_minor, true)
                AND coalesce(n.held_count + n.used_count <= n.max_count, true)
                THEN INSERT (tenant_id, limit_id, subject, period, held_minor, used_minor, held_count, used_count)
                    VALUES (n.tenant_id, n.limit_id, n.subject, n.period,
                        n.held_minor, n.used_minor, n.held_count, n.used_count);
            GET DIAGNOSTICS written = ROW_COUNT;
            IF written <> expected THEN RAISE SQLSTATE 'FL001'; END IF;
            RETURN true;
        EXCEPTION
            WHEN SQLSTATE 'FL001' THEN RETURN false;
            -- Another transaction made one of them meanwhile: it is there now, and nothing of this round is.
            WHEN unique_violation THEN NULL;
        END;
    END LOOP;
    RETURN false;
END $$;
