-- Limits of a day and of a month mostly count the same payments: a batch names whom they count, and what, once for all.

-- Take the same of several limits: p_subjects and the sums stand for each of p_limits. The rest is as in
-- `fleet.take_limit_usage`, which answers, and asks whose they are.
CREATE FUNCTION fleet.take_limit_usage_alike(
    p_tenants uuid[], p_limits uuid[], p_periods date[], p_max_minor bigint[], p_max_count integer[],
    p_subjects text[],
    p_held_minor bigint[], p_used_minor bigint[], p_held_count integer[], p_used_count integer[]
) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    places     integer[];
    subjects   text[];
    held_minor bigint[];
    used_minor bigint[];
    held_count integer[];
    used_count integer[];
BEGIN
    FOR place IN 1 .. cardinality(p_limits) LOOP
        places := places || array_fill(place, ARRAY[cardinality(p_subjects)]);
        subjects := subjects || p_subjects;
        -- One for all stays one for all, however often it is there.
        held_minor := held_minor || p_held_minor;
        used_minor := used_minor || p_used_minor;
        held_count := held_count || p_held_count;
        used_count := used_count || p_used_count;
    END LOOP;
    RETURN fleet.take_limit_usage(p_tenants, p_limits, p_periods, p_max_minor, p_max_count, places, subjects,
        held_minor, used_minor, held_count, used_count);
END $$;
REVOKE ALL ON FUNCTION fleet.take_limit_usage_alike FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.take_limit_usage_alike TO fleet_app, fleet_worker;
