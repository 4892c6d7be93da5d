-- A payment that was parked and has ended has nothing left that people must decide: its alert is closed with it.
CREATE OR REPLACE FUNCTION fleet.name_who_closes() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF NEW.kind NOT IN ('success_after_void', 'end_doubted', 'return_not_booked', 'unresolved') THEN
        RAISE EXCEPTION 'an alert of the kind % is closed by people', NEW.kind USING ERRCODE = 'restrict_violation';
    END IF;
    NEW.closed_by := 'core';
    IF NEW.closed_because = OLD.closed_because THEN
        NEW.closed_because := 'made good by the core';
    END IF;
    RETURN NEW;
END $$;
