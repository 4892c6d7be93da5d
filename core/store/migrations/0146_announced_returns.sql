-- Returns as a bank announces them (pacs.004), each once. None moves money: what comes back is booked when the account
-- shows it. One that no booking follows in time is told to a person.

CREATE TABLE fleet.announced_returns (
    rail             text        NOT NULL,
    provider_account text        NOT NULL,
    environment      text        NOT NULL,
    name             text        NOT NULL CHECK (name <> ''),  -- the bank's own name of the return
    reference        text        NOT NULL,                     -- of the payment; empty where the bank names none
    amount_minor     bigint      NOT NULL CHECK (amount_minor > 0),
    currency         text        NOT NULL,
    tenant_id        uuid        NOT NULL,
    intent_id        uuid,                                     -- NULL where the reference is of no payment of ours
    reason           text        NOT NULL,
    provider_reason  text        NOT NULL,
    evidence_id      uuid        NOT NULL,
    told_at          timestamptz NOT NULL DEFAULT now(),
    due_at           timestamptz,                              -- the next look; NULL once it is booked, or too old
    alerted_at       timestamptz,
    -- The same name with other money is another announcement, and is kept beside the first.
    PRIMARY KEY (rail, provider_account, environment, name, reference, amount_minor, currency)
);
CREATE INDEX announced_returns_by_intent ON fleet.announced_returns (intent_id) WHERE intent_id IS NOT NULL;
CREATE INDEX announced_returns_due ON fleet.announced_returns (due_at) WHERE due_at IS NOT NULL;

SELECT fleet.confine_to_tenant('announced_returns');
CREATE TRIGGER refuse_loss BEFORE DELETE OR TRUNCATE ON fleet.announced_returns
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_loss();
GRANT SELECT ON fleet.announced_returns TO fleet_app;
GRANT SELECT, INSERT ON fleet.announced_returns TO fleet_worker;
GRANT UPDATE (due_at, alerted_at) ON fleet.announced_returns TO fleet_worker;

-- The core closes what it makes good by itself: a return that is booked after all is one of these.
CREATE OR REPLACE FUNCTION fleet.name_who_closes() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF NEW.kind NOT IN ('success_after_void', 'end_doubted', 'return_not_booked') THEN
        RAISE EXCEPTION 'an alert of the kind % is closed by people', NEW.kind USING ERRCODE = 'restrict_violation';
    END IF;
    NEW.closed_by := 'core';
    IF NEW.closed_because = OLD.closed_because THEN
        NEW.closed_because := 'made good by the core';
    END IF;
    RETURN NEW;
END $$;
