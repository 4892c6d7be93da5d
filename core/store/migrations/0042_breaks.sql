-- What reconciliation found: each break once, with an owner, an age and how it was put right. Never by an edit.
CREATE TABLE fleet.breaks (
    id              uuid        PRIMARY KEY,          -- derived from kind and subject: found again, it is the same one
    tenant_id       uuid        NOT NULL,
    kind            text        NOT NULL,
    subject_id      uuid,                             -- the intent, transfer or account
    amount_minor    bigint      NOT NULL DEFAULT 0 CHECK (amount_minor >= 0),
    currency        text        NOT NULL DEFAULT '',
    detail          text        NOT NULL,
    state           text        NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'PROPOSED', 'RESOLVED', 'GONE')),
    owner           text        NOT NULL DEFAULT '',
    reason          text        NOT NULL DEFAULT '',
    entry_intent_id uuid,                             -- the new entry that puts it right
    proposed_by     text        NOT NULL DEFAULT '',
    resolved_by     text        NOT NULL DEFAULT '',
    first_seen_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at    timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz
);
CREATE INDEX breaks_by_state ON fleet.breaks (state, first_seen_at, id);
CREATE INDEX breaks_by_tenant ON fleet.breaks (tenant_id, state, first_seen_at, id);
SELECT fleet.confine_to_tenant('breaks');
GRANT SELECT ON fleet.breaks TO fleet_app;
GRANT SELECT, INSERT ON fleet.breaks TO fleet_worker;
GRANT UPDATE (state, owner, reason, entry_intent_id, proposed_by, resolved_by, last_seen_at, ended_at, detail,
    amount_minor) ON fleet.breaks TO fleet_worker;
