-- How many letters of a redrive are where is asked at every step and on every page. Counting the snapshot each time costs
-- a redrive of n letters n * n / batch rows; the counts are kept by what changes the letters instead.
ALTER TABLE fleet.redrives
    ADD COLUMN waiting   integer NOT NULL DEFAULT 0,
    ADD COLUMN sent      integer NOT NULL DEFAULT 0,
    ADD COLUMN succeeded integer NOT NULL DEFAULT 0,
    ADD COLUMN failed    integer NOT NULL DEFAULT 0,
    ADD COLUMN skipped   integer NOT NULL DEFAULT 0,
    ADD COLUMN released  integer NOT NULL DEFAULT 0;
GRANT UPDATE (waiting, sent, succeeded, failed, skipped, released) ON fleet.redrives TO fleet_worker;

-- A trigger, and not the statements: the release before this one, and people by hand, change letters too.
CREATE FUNCTION fleet.count_redrive_items() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE fleet.redrives r SET
            waiting = r.waiting + d.waiting,
            sent = r.sent + d.sent,
            succeeded = r.succeeded + d.succeeded,
            failed = r.failed + d.failed,
            skipped = r.skipped + d.skipped,
            released = r.released + d.released
        FROM (
            SELECT c.redrive_id,
                count(*) FILTER (WHERE c.state = 'WAITING') AS waiting,
                count(*) FILTER (WHERE c.state = 'SENT') AS sent,
                count(*) FILTER (WHERE c.state = 'SUCCEEDED') AS succeeded,
                count(*) FILTER (WHERE c.state = 'FAILED') AS failed,
                count(*) FILTER (WHERE c.state = 'SKIPPED') AS skipped,
                count(*) FILTER (WHERE c.state = 'RELEASED') AS released
            FROM after_it c GROUP BY c.redrive_id
        ) d WHERE r.id = d.redrive_id;
    ELSE
        UPDATE fleet.redrives r SET
            waiting = r.waiting + d.waiting,
            sent = r.sent + d.sent,
            succeeded = r.succeeded + d.succeeded,
            failed = r.failed + d.failed,
            skipped = r.skipped + d.skipped,
            released = r.released + d.released
        FROM (
            SELECT c.redrive_id,
                coalesce(sum(c.n) FILTER (WHERE c.state = 'WAITING'), 0) AS waiting,
                coalesce(sum(c.n) FILTER (WHERE c.state = 'SENT'), 0) AS sent,
                coalesce(sum(c.n) FILTER (WHERE c.state = 'SUCCEEDED'), 0) AS succeeded,
                coalesce(sum(c.n) FILTER (WHERE c.state = 'FAILED'), 0) AS failed,
                coalesce(sum(c.n) FILTER (WHERE c.state = 'SKIPPED'), 0) AS skipped,
                coalesce(sum(c.n) FILTER (WHERE c.state = 'RELEASED'), 0) AS released
            FROM (SELECT a.redrive_id, a.state, 1 AS n FROM after_it a
                UNION ALL SELECT b.redrive_id, b.state, -1 FROM before_it b) c GROUP BY c.redrive_id
        ) d WHERE r.id = d.redrive_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER count_inserted AFTER INSERT ON fleet.redrive_items REFERENCING NEW TABLE AS after_it
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.count_redrive_items();
CREATE TRIGGER count_updated AFTER UPDATE ON fleet.redrive_items REFERENCING OLD TABLE AS before_it NEW TABLE AS after_it
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.count_redrive_items();

-- No letter changes while these are counted: the triggers above hold the table until this has committed.
UPDATE fleet.redrives r SET waiting = c.waiting, sent = c.sent, succeeded = c.succeeded,
    failed = c.failed, skipped = c.skipped, released = c.released
FROM (
    SELECT i.redrive_id,
        count(*) FILTER (WHERE i.state = 'WAITING') AS waiting,
        count(*) FILTER (WHERE i.state = 'SENT') AS sent,
        count(*) FILTER (WHERE i.state = 'SUCCEEDED') AS succeeded,
        count(*) FILTER (WHERE i.state = 'FAILED') AS failed,
        count(*) FILTER (WHERE i.state = 'SKIPPED') AS skipped,
        count(*) FILTER (WHERE i.state = 'RELEASED') AS released
    FROM fleet.redrive_items i GROUP BY i.redrive_id
) c WHERE r.id = c.redrive_id;
