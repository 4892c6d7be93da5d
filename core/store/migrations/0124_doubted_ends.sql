-- Payments that ended unpaid here, and that a provider, or its register, told of as paid afterwards. Each is asked about
-- by its reference until the answer is definite; what the answer moves, it moves as every answer does.

CREATE TABLE fleet.doubted_ends (
    job_id      uuid        PRIMARY KEY,
    tenant_id   uuid        NOT NULL,
    intent_id   uuid        NOT NULL,
    rail        text        NOT NULL,
    told_by     text        NOT NULL CHECK (told_by IN ('CALLBACK', 'POLL', 'REGISTER', 'STATEMENT')),
    told_at     timestamptz NOT NULL DEFAULT now(),
    asks        integer     NOT NULL DEFAULT 0,
    question_id uuid,                                -- the last inquiry about it
    next_ask_at timestamptz,                         -- NULL once it has ended
    answer      text                                 -- the verdict that ended it, or `unanswered`
);
CREATE INDEX doubted_ends_due ON fleet.doubted_ends (next_ask_at) WHERE next_ask_at IS NOT NULL;
CREATE INDEX doubted_ends_by_question ON fleet.doubted_ends (question_id) WHERE next_ask_at IS NOT NULL;

SELECT fleet.confine_to_tenant('doubted_ends');
GRANT SELECT ON fleet.doubted_ends TO fleet_app;
GRANT SELECT, INSERT ON fleet.doubted_ends TO fleet_worker;
GRANT UPDATE (told_by, told_at, asks, question_id, next_ask_at, answer) ON fleet.doubted_ends TO fleet_worker;

-- What a provider tells of names the reference alone. Payments that were paid, nearly all, are not in this index.
CREATE INDEX jobs_ended_otherwise ON fleet.jobs (reference)
    WHERE closed_at IS NOT NULL AND kind IN ('pay', 'refund') AND outcome <> 'SUCCEEDED';
