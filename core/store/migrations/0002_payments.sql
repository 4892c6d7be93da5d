-- Intents, jobs, permits, facts and what surrounds them. Every table carries the tenant; ids carry time, so the
-- large tables are partitioned by id and keep a primary key that is unique over all partitions.
-- Hot paths have no foreign keys: rows are written by one transaction that knows them all, and `fleet ledger verify`
-- and reconciliation prove the links instead.

CREATE TABLE fleet.service_keys (
    id            text        PRIMARY KEY,
    tenant_id     uuid        NOT NULL,
    kind          text        NOT NULL CHECK (kind IN ('service', 'rail')),
    rail          text,
    name          text        NOT NULL,
    operations    text[]      NOT NULL DEFAULT '{}',  -- permitted operation types and scopes; '*' permits all
    accounts      uuid[],                             -- permitted wallets; NULL permits all of the tenant
    secret        bytea       NOT NULL,               -- encrypted under the master key
    secret_next   bytea,                              -- the second live secret during a rotation
    created_at    timestamptz NOT NULL DEFAULT now(),
    rotated_at    timestamptz,
    revoked_at    timestamptz,
    CHECK ((kind = 'rail') = (rail IS NOT NULL))
);

CREATE TABLE fleet.request_nonces (
    tenant_id  uuid        NOT NULL,
    key_id     text        NOT NULL,
    nonce      text        NOT NULL,
    seen_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key_id, nonce)
);
CREATE INDEX request_nonces_by_age ON fleet.request_nonces USING brin (seen_at);

CREATE TABLE fleet.idempotency_keys (
    tenant_id      uuid        NOT NULL,
    service_key_id text        NOT NULL,
    key            text        NOT NULL,
    request_hash   bytea       NOT NULL,
    intent_id      uuid        NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, service_key_id, key)
);

CREATE TABLE fleet.wallets (
    id          uuid        PRIMARY KEY,  -- the ledger account's id
    tenant_id   uuid        NOT NULL,
    owner       text        NOT NULL,
    currency    text        NOT NULL,
    external_id text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, external_id)
);
CREATE INDEX wallets_by_owner ON fleet.wallets (tenant_id, owner);

-- One encryption key per person or company that is paid; deleting it erases every instruction under it.
CREATE TABLE fleet.subjects (
    id          uuid        PRIMARY KEY,  -- derived from a keyed hash of the payee
    tenant_id   uuid        NOT NULL,
    wrapped_key bytea,
    created_at  timestamptz NOT NULL DEFAULT now(),
    erased_at   timestamptz
);

CREATE TABLE fleet.routes (
    id               bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id        uuid        NOT NULL,
    operation        text        NOT NULL,
    currency         text        NOT NULL,
    rail             text        NOT NULL,
    provider         text        NOT NULL,
    provider_account text        NOT NULL,
    environment      text        NOT NULL DEFAULT 'sandbox',
    enabled          boolean     NOT NULL DEFAULT true,
    valid_from       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, operation, currency, rail, valid_from)
);

-- Rails serve every tenant: their rows carry the system tenant (all zeros).
CREATE TABLE fleet.rail_registrations (
    tenant_id     uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    rail          text        NOT NULL,
    version       integer     NOT NULL,
    body          jsonb       NOT NULL,
    body_hash     bytea       NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (rail, version)
);

-- Pausing refuses new first permits only. operation '*' is the whole rail.
CREATE TABLE fleet.rail_pauses (
    tenant_id uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    rail      text        NOT NULL,
    operation text        NOT NULL DEFAULT '*',
    paused_by text        NOT NULL,
    reason    text        NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (rail, operation)
);

CREATE TABLE fleet.stream_epochs (
    tenant_id uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    rail      text        PRIMARY KEY,
    epoch     integer     NOT NULL,
    token     text        NOT NULL,  -- also kept in Redis; where the two differ, the server was wiped
    raised_at timestamptz NOT NULL DEFAULT now()
);

-- Raised after a restore or a fail-over that may have lost commits: jobs of an older epoch count as possibly sent.
CREATE TABLE fleet.ledger_epochs (
    tenant_id uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    epoch     integer     PRIMARY KEY,
    reason    text        NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT now(),
    cleared_at timestamptz  -- first permits of older jobs stay shut until then
);
INSERT INTO fleet.ledger_epochs (epoch, reason, cleared_at) VALUES (1, 'created', now());

CREATE TABLE fleet.intents (
    id                uuid        NOT NULL,
    tenant_id         uuid        NOT NULL,
    service_key_id    text        NOT NULL,
    operation         text        NOT NULL,
    state             text        NOT NULL,
    version           integer     NOT NULL,           -- seq of its newest event
    wallet_id         uuid        NOT NULL,
    amount_minor      bigint      NOT NULL CHECK (amount_minor > 0),
    currency          text        NOT NULL,
    fee_minor         bigint      NOT NULL DEFAULT 0 CHECK (fee_minor >= 0),
    client_reference  text        NOT NULL DEFAULT '',
    rail              text,
    provider          text,
    provider_account  text,
    environment       text,
    subject_id        uuid,
    instruction       bytea,                          -- payee and message, encrypted with the subject's key
    payee_type        text,
    payee_masked      text,
    auto_confirm      jsonb,
    lookup            jsonb,                          -- lookup_id, expires_at, fee_minor, payee_name_masked, evidence_id
    provider_reference text,
    accept_state      text        NOT NULL,           -- the state of the first answer, for replays of the request
    failure_code      text,
    failure_message   text,
    decision          text        CHECK (decision IN ('POST', 'VOID')),  -- one irrevocable decision per hold
    deadline          timestamptz,
    parked_at         timestamptz,                    -- set while UNRESOLVED
    ledger_epoch      integer     NOT NULL DEFAULT 1,
    traceparent       text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX intents_by_tenant ON fleet.intents (tenant_id, id);
CREATE INDEX intents_parked ON fleet.intents (parked_at) WHERE parked_at IS NOT NULL;

CREATE TABLE fleet.intent_events (
    intent_id   uuid        NOT NULL,
    seq         integer     NOT NULL,
    tenant_id   uuid        NOT NULL,
    type        text        NOT NULL,
    state       text        NOT NULL,
    actor       text        NOT NULL,
    data        jsonb       NOT NULL DEFAULT '{}',
    traceparent text,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (intent_id, seq)
) PARTITION BY RANGE (intent_id);

-- state: READY (in the outbox) -> QUEUED (in a stream) -> WAITING (sent or refused for now; the resolver's) -> CLOSED;
-- DEAD is a dead letter. READY and QUEUED may follow WAITING again; CLOSED never reopens.
CREATE TABLE fleet.jobs (
    id               uuid        NOT NULL,
    tenant_id        uuid        NOT NULL,
    intent_id        uuid        NOT NULL,
    target_job_id    uuid,                            -- inquire and cancel: the payment they are about
    kind             text        NOT NULL,
    operation        text        NOT NULL,
    rail             text        NOT NULL,
    provider         text        NOT NULL,
    provider_account text        NOT NULL,
    environment      text        NOT NULL,
    state            text        NOT NULL DEFAULT 'READY',
    reference        text        NOT NULL,            -- minted by the core, once
    amount_minor     bigint      NOT NULL CHECK (amount_minor > 0),
    currency         text        NOT NULL,
    payee_masked     text        NOT NULL DEFAULT '',
    fence            integer     NOT NULL DEFAULT 0,
    first_granted_at timestamptz,
    busy_until       timestamptz,                     -- last permit's S + T_psp
    permit_request   uuid,                            -- last permit's request and process, for idempotent answers
    incarnation      uuid,
    failures         integer     NOT NULL DEFAULT 0,  -- failed deliveries and refused sends of this round
    inquiries        integer     NOT NULL DEFAULT 0,
    next_check_at    timestamptz,                     -- the resolver's next look; NULL while nothing is in doubt
    tombstoned       boolean     NOT NULL DEFAULT false,  -- a cancel by reference was asked for
    not_before       timestamptz,
    deadline         timestamptz NOT NULL,
    stream           text        NOT NULL,
    entry_id         text,
    stream_epoch     integer,
    queued_at        timestamptz,
    closed_at        timestamptz,
    outcome          text,                            -- the verdict, or the reason, it was closed with
    ledger_epoch     integer     NOT NULL DEFAULT 1,
    traceparent      text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX jobs_by_intent ON fleet.jobs (intent_id);
CREATE INDEX jobs_open_by_deadline ON fleet.jobs (deadline) WHERE closed_at IS NULL;
CREATE INDEX jobs_to_check ON fleet.jobs (next_check_at) WHERE next_check_at IS NOT NULL;

-- A delivery queue into Redis: a row leaves when its entry is written. One row per job at most.
CREATE TABLE fleet.outbox (
    job_id      uuid        PRIMARY KEY,
    tenant_id   uuid        NOT NULL,
    rail        text        NOT NULL,
    stream      text        NOT NULL,
    not_before  timestamptz NOT NULL DEFAULT now(),
    body        text        NOT NULL,                 -- the Job as JSON
    traceparent text,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_due ON fleet.outbox (stream, not_before);

CREATE TABLE fleet.attempts (
    job_id           uuid        NOT NULL,
    fence            integer     NOT NULL,
    tenant_id        uuid        NOT NULL,
    mode             text        NOT NULL CHECK (mode IN ('SEND', 'INQUIRE_ONLY')),
    reference        text        NOT NULL,
    provider_account text        NOT NULL,
    environment      text        NOT NULL,
    service_key_id   text        NOT NULL,
    incarnation      uuid        NOT NULL,
    request_id       uuid        NOT NULL,
    granted_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    negative_at      timestamptz,                     -- a definite negative for this fence
    PRIMARY KEY (job_id, fence)
) PARTITION BY RANGE (job_id);

-- The inbox: each fact once. money_hash covers amount, currency, account and transaction id.
CREATE TABLE fleet.facts (
    job_id         uuid        NOT NULL,
    fence          integer     NOT NULL,
    verdict        text        NOT NULL,
    money_hash     bytea       NOT NULL,
    tenant_id      uuid        NOT NULL,
    intent_id      uuid        NOT NULL,
    rail           text        NOT NULL,
    body           jsonb       NOT NULL,
    evidence_id    uuid,
    applied_at     timestamptz,
    quarantine     text,                              -- why it could not be applied; NULL where it was
    received_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, fence, verdict, money_hash)
) PARTITION BY RANGE (job_id);

CREATE TABLE fleet.evidence (
    id          uuid        PRIMARY KEY,
    tenant_id   uuid        NOT NULL,
    rail        text        NOT NULL,
    job_id      uuid,
    kind        text        NOT NULL,
    ciphertext  bytea       NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE fleet.dead_letters (
    id          uuid        PRIMARY KEY,
    tenant_id   uuid        NOT NULL,
    stream      text        NOT NULL,
    entry_id    text        NOT NULL,
    rail        text        NOT NULL,
    job_id      uuid,
    intent_id   uuid,
    error_class text        NOT NULL,
    fingerprint text        NOT NULL,
    message     text        NOT NULL,
    deliveries  integer     NOT NULL,
    body        bytea       NOT NULL,                 -- raw, encrypted under the master key
    state       text        NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'REDRIVEN', 'CLOSED')),
    received_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (stream, entry_id)
);
CREATE INDEX dead_letters_by_fingerprint ON fleet.dead_letters (fingerprint, received_at);
CREATE INDEX dead_letters_by_job ON fleet.dead_letters (job_id) WHERE job_id IS NOT NULL;

CREATE TABLE fleet.alerts (
    id         uuid        PRIMARY KEY,
    tenant_id  uuid        NOT NULL,
    severity   text        NOT NULL CHECK (severity IN ('ticket', 'page')),
    kind       text        NOT NULL,
    intent_id  uuid,
    job_id     uuid,
    detail     text        NOT NULL,
    raised_at  timestamptz NOT NULL DEFAULT now(),
    closed_at  timestamptz
);
CREATE INDEX alerts_open ON fleet.alerts (raised_at) WHERE closed_at IS NULL;
