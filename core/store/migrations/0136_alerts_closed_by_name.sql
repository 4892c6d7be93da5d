-- Whoever closes an alert is named: people, or the core, which closes by itself only what it makes good by itself.
ALTER TABLE fleet.alerts DROP CONSTRAINT alerts_check;
ALTER TABLE fleet.alerts ADD CONSTRAINT alerts_check CHECK (closed_by IS NULL OR (closed_because <> ''
    AND (severity <> 'page' OR closed_by = 'core' OR (proposed_by IS NOT NULL AND proposed_by <> closed_by))));

-- What was closed without a name until now, the core closed: nobody else could.
UPDATE fleet.alerts SET closed_by = 'core', closed_because = 'made good by the core'
WHERE closed_at IS NOT NULL AND closed_by IS NULL;

-- The release before leaves the core's name out: it is written in here. No role closes anything else without people.
CREATE FUNCTION fleet.name_who_closes() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF NEW.kind NOT IN ('success_after_void', 'end_doubted') THEN
        RAISE EXCEPTION 'an alert of the kind % is closed by people', NEW.kind USING ERRCODE = 'restrict_violation';
    END IF;
    NEW.closed_by := 'core';
    IF NEW.closed_because = OLD.closed_because THEN
        NEW.closed_because := 'made good by the core';
    END IF;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION fleet.name_who_closes FROM PUBLIC;
CREATE TRIGGER name_who_closes BEFORE UPDATE OF closed_at, closed_by ON fleet.alerts
    FOR EACH ROW WHEN (NEW.closed_at IS NOT NULL AND coalesce(NEW.closed_by, 'core') = 'core')
    EXECUTE FUNCTION fleet.name_who_closes();

-- contract: the trigger gives the release before the name that it leaves out, so it writes no row that this refuses
ALTER TABLE fleet.alerts ADD CONSTRAINT alerts_closed_by_somebody CHECK (closed_at IS NULL OR closed_by IS NOT NULL);
