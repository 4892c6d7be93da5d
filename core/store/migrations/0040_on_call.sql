-- What a person on call works with: dead letters that are found fast, redrives that survive, a journal that shows edits.

ALTER TABLE fleet.dead_letters
    ADD COLUMN operation   text,
    ADD COLUMN kind        text,
    ADD COLUMN provider    text,
    ADD COLUMN reference   text NOT NULL DEFAULT '',  -- the one that the provider knows the job by
    ADD COLUMN traceparent text,
    ADD COLUMN payload     jsonb NOT NULL DEFAULT '{}',  -- the fields of the contract, payee masked; the body stays sealed
    ADD COLUMN closed_at   timestamptz,
    ADD COLUMN words       tsvector GENERATED ALWAYS AS
        (to_tsvector('simple', message || ' ' || error_class || ' ' || reference)) STORED;
UPDATE fleet.dead_letters d SET operation = j.operation, kind = j.kind, provider = j.provider, reference = j.reference,
    traceparent = j.traceparent
FROM fleet.jobs j WHERE j.id = d.job_id;

-- A list is newest first within what it is narrowed to: each narrowing walks an index in that order.
DROP INDEX fleet.dead_letters_by_fingerprint;
CREATE INDEX dead_letters_by_time ON fleet.dead_letters (state, received_at, id);
CREATE INDEX dead_letters_by_fingerprint ON fleet.dead_letters (state, fingerprint, received_at, id);
CREATE INDEX dead_letters_by_class ON fleet.dead_letters (state, error_class, received_at, id);
CREATE INDEX dead_letters_by_rail ON fleet.dead_letters (state, rail, received_at, id);
CREATE INDEX dead_letters_by_operation ON fleet.dead_letters (state, operation, received_at, id);
CREATE INDEX dead_letters_by_provider ON fleet.dead_letters (state, provider, received_at, id);
CREATE INDEX dead_letters_by_tenant ON fleet.dead_letters (tenant_id, state, received_at, id);
CREATE INDEX dead_letters_by_intent ON fleet.dead_letters (intent_id) WHERE intent_id IS NOT NULL;
CREATE INDEX dead_letters_by_words ON fleet.dead_letters USING gin (words) WITH (fastupdate = off);
GRANT UPDATE (closed_at) ON fleet.dead_letters TO fleet_worker;

-- One act on dead letters: redrive or discard them, or settle one payment by hand. tenant_id is whose letters it may
-- touch; the system's touches every tenant's.
CREATE TABLE fleet.redrives (
    id              uuid        PRIMARY KEY,
    tenant_id       uuid        NOT NULL,
    action          text        NOT NULL CHECK (action IN ('REDRIVE', 'DISCARD', 'SETTLE')),
    state           text        NOT NULL CHECK (state IN
        ('AWAITING_APPROVAL', 'RUNNING', 'DONE', 'STOPPED', 'CANCELLED', 'REJECTED')),
    reason          text        NOT NULL CHECK (reason <> ''),
    incident        text        NOT NULL CHECK (incident <> ''),
    selection       jsonb       NOT NULL,             -- the filter, or what is settled and how
    evidence_id     uuid        CHECK ((evidence_id IS NOT NULL) = (action = 'SETTLE')),
    counts          jsonb       NOT NULL DEFAULT '{}',  -- the verdicts when it was asked for
    total           integer     NOT NULL CHECK (total >= 0),
    canary          integer     NOT NULL CHECK (canary >= 0),
    rate_per_s      integer     NOT NULL CHECK (rate_per_s > 0),
    ramp_s          integer     NOT NULL CHECK (ramp_s >= 0),
    stop_at_percent integer     NOT NULL CHECK (stop_at_percent BETWEEN 1 AND 100),
    asked_by        text        NOT NULL,
    decided_by      text        CHECK (decided_by <> asked_by),
    ended_because   text        NOT NULL DEFAULT '',
    ramp_began_at   timestamptz,                      -- NULL until the canary is over
    created_at      timestamptz NOT NULL DEFAULT now(),
    started_at      timestamptz,
    ended_at        timestamptz
);
CREATE INDEX redrives_running ON fleet.redrives (created_at) WHERE state = 'RUNNING';
CREATE INDEX redrives_by_tenant ON fleet.redrives (tenant_id, created_at, id);
CREATE UNIQUE INDEX redrives_one_settlement ON fleet.redrives ((selection->>'intent_id'))
    WHERE action = 'SETTLE' AND state = 'AWAITING_APPROVAL';

-- The snapshot. A letter is in one open redrive at most: two people at once have one effect.
CREATE TABLE fleet.redrive_items (
    redrive_id  uuid        NOT NULL REFERENCES fleet.redrives,
    letter_id   uuid        NOT NULL,
    tenant_id   uuid        NOT NULL,
    place       integer     NOT NULL,
    state       text        NOT NULL DEFAULT 'WAITING' CHECK (state IN
        ('WAITING', 'SENT', 'SUCCEEDED', 'FAILED', 'SKIPPED', 'RELEASED')),
    verdict     text,                                 -- as it was in the transaction that acted
    detail      text        NOT NULL DEFAULT '',
    acted_at    timestamptz,
    PRIMARY KEY (redrive_id, letter_id)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX redrive_items_once ON fleet.redrive_items (letter_id) WHERE state IN ('WAITING', 'SENT');
CREATE INDEX redrive_items_waiting ON fleet.redrive_items (redrive_id, place) WHERE state = 'WAITING';
CREATE INDEX redrive_items_sent ON fleet.redrive_items (redrive_id, letter_id) WHERE state = 'SENT';

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['redrives', 'redrive_items']) t;
GRANT SELECT ON fleet.redrives, fleet.redrive_items TO fleet_app;
GRANT SELECT, INSERT ON fleet.redrives, fleet.redrive_items TO fleet_worker;
GRANT UPDATE (state, counts, total, decided_by, ended_because, ramp_began_at, started_at, ended_at)
    ON fleet.redrives TO fleet_worker;
GRANT UPDATE (state, verdict, detail, acted_at) ON fleet.redrive_items TO fleet_worker;
