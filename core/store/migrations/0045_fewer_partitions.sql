-- A statement pays for each partition that it could meet, before its first row: empty months that nobody will soon
-- write to are not kept ahead. The month before, the month after next and the one after that go, where they are empty.
DO $$
DECLARE
    part  record;
    empty boolean;
BEGIN
    FOR part IN
        SELECT c.relname FROM fleet.partitioned_tables t
        JOIN pg_inherits i ON i.inhparent = ('fleet.' || quote_ident(t.table_name))::regclass
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE c.relname ~ '_p\d{6}$'
            AND right(c.relname, 6) NOT IN (to_char(now() AT TIME ZONE 'UTC', 'YYYYMM'),
                to_char((now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYYMM'))
    LOOP
        EXECUTE format('SELECT NOT EXISTS (SELECT FROM fleet.%I)', part.relname) INTO empty;
        IF empty THEN EXECUTE format('DROP TABLE fleet.%I', part.relname); END IF;
    END LOOP;
END $$;
