-- Upkeep asks every half a minute. A table that is guarded is left alone: to write its triggers again takes a lock that
-- every payment waits for.
CREATE OR REPLACE FUNCTION fleet.ensure_partitions(months_back integer, months_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET timezone = 'UTC' AS $$
DECLARE
    entry fleet.partitioned_tables;
    month timestamptz;
    part  text;
    made  integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('fleet.ensure_partitions'));
    FOR entry IN SELECT * FROM fleet.partitioned_tables LOOP
        PERFORM fleet.guard_table(entry.table_name) WHERE NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = ('fleet.' || quote_ident(entry.table_name))::regclass
                AND NOT tgisinternal);
        FOR month IN SELECT generate_series(date_trunc('month', now()) - make_interval(months => months_back),
                date_trunc('month', now()) + make_interval(months => months_ahead), interval '1 month') LOOP
            part := entry.table_name || '_p' || to_char(month, 'YYYYMM');
            CONTINUE WHEN to_regclass('fleet.' || quote_ident(part)) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE fleet.%I PARTITION OF fleet.%I FOR VALUES FROM (%L) TO (%L)', part,
                    entry.table_name, fleet.first_id_at(month), fleet.first_id_at(month + interval '1 month'));
                PERFORM fleet.guard_table(part);
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                -- The net holds rows of this month: they are served from there, and the other months still come.
                RAISE WARNING 'no partition %: its rows are in %_pdefault', part, entry.table_name;
            END;
        END LOOP;
        part := entry.table_name || '_pdefault';
        IF to_regclass('fleet.' || quote_ident(part)) IS NULL THEN
            EXECUTE format('CREATE TABLE fleet.%I PARTITION OF fleet.%I DEFAULT', part, entry.table_name);
            PERFORM fleet.guard_table(part);
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END $$;
