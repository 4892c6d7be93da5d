-- Money in: collections and the references that payers name, payments as providers tell them, and what rests in suspense.

ALTER TABLE fleet.intents ADD COLUMN next_action jsonb;
-- Of a collection: what was confirmed, where a tolerance let it differ from what was asked.
ALTER TABLE fleet.intents ADD COLUMN confirmed_minor bigint CHECK (confirmed_minor > 0);
GRANT UPDATE (next_action, confirmed_minor) ON fleet.intents TO fleet_worker;

-- By which reference a payment in finds its intent.
CREATE TABLE fleet.collections (
    intent_id        uuid        PRIMARY KEY,
    tenant_id        uuid        NOT NULL,
    job_id           uuid        NOT NULL,
    rail             text        NOT NULL,
    provider_account text        NOT NULL,
    environment      text        NOT NULL,
    reference        text        NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    UNIQUE (rail, provider_account, environment, reference)
);

-- One row per payment at a provider, whoever told of it and how often. SUSPENDED is the work list's: it is open until
-- an intent consumes it that has not failed.
CREATE TABLE fleet.provider_payments (
    id               uuid        PRIMARY KEY,
    tenant_id        uuid        NOT NULL,
    rail             text        NOT NULL,
    provider         text        NOT NULL,
    provider_account text        NOT NULL,
    environment      text        NOT NULL,
    kind             text        NOT NULL CHECK (kind IN ('PAYMENT', 'RETURN')),
    transaction_id   text        NOT NULL CHECK (transaction_id <> ''),
    amount_minor     bigint      NOT NULL CHECK (amount_minor > 0),
    currency         text        NOT NULL,
    reference        text        NOT NULL,
    occurred_at      timestamptz NOT NULL,
    state            text        NOT NULL CHECK (state IN ('NOTED', 'CREDITED', 'SUSPENDED', 'REVERSED')),
    reason           text        NOT NULL DEFAULT '',
    intent_id        uuid,                            -- the collection that it was matched to
    consumed_by      uuid,                            -- the intent that took it out of suspense
    consumed_at      timestamptz,
    seen_at          timestamptz NOT NULL DEFAULT now(),
    accounted_at     timestamptz
);
CREATE INDEX provider_payments_by_intent ON fleet.provider_payments (intent_id) WHERE intent_id IS NOT NULL;
CREATE INDEX provider_payments_in_suspense ON fleet.provider_payments (tenant_id, id) WHERE state = 'SUSPENDED';
CREATE INDEX provider_payments_noted ON fleet.provider_payments (seen_at) WHERE state = 'NOTED';

-- Every name of a transaction: the provider's id, the bank's. A name is one payment's.
CREATE TABLE fleet.provider_payment_names (
    rail             text NOT NULL,
    provider_account text NOT NULL,
    environment      text NOT NULL,
    kind             text NOT NULL,
    name             text NOT NULL CHECK (name <> ''),
    recycled_on      date NOT NULL,                   -- -infinity where ids are never used again
    tenant_id        uuid NOT NULL,
    payment_id       uuid NOT NULL REFERENCES fleet.provider_payments (id),
    PRIMARY KEY (rail, provider_account, environment, kind, name, recycled_on)
);

CREATE TABLE fleet.provider_payment_sources (
    payment_id   uuid        NOT NULL REFERENCES fleet.provider_payments (id),
    tenant_id    uuid        NOT NULL,
    source       text        NOT NULL CHECK (source IN ('CALLBACK', 'POLL', 'REGISTER', 'STATEMENT')),
    evidence_id  uuid,
    amount_minor bigint      NOT NULL,
    currency     text        NOT NULL,
    differs      boolean     NOT NULL,                -- other money under the same name: told, and without effect
    seen_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (payment_id, source, evidence_id, amount_minor, currency)
);

-- Callbacks seen: an id is one callback, for good.
CREATE TABLE fleet.provider_events (
    tenant_id   uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    rail        text        NOT NULL,
    event_id    text        NOT NULL,
    body_hash   bytea       NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (rail, event_id)
);

-- What people decided about items of the work list, and why.
CREATE TABLE fleet.suspense_decisions (
    payment_id uuid        NOT NULL REFERENCES fleet.provider_payments (id),
    tenant_id  uuid        NOT NULL,
    action     text        NOT NULL CHECK (action IN ('ASSIGN', 'RETURN')),
    intent_id  uuid        NOT NULL,
    actor      text        NOT NULL,
    reason     text        NOT NULL CHECK (reason <> ''),
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (payment_id, intent_id)
);
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON fleet.suspense_decisions
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_change();

-- How far a payment may be from what was asked, and still be credited as it came.
CREATE TABLE fleet.collection_tolerances (
    tenant_id   uuid        NOT NULL,
    operation   text        NOT NULL,
    currency    text        NOT NULL,
    below_minor bigint      NOT NULL CHECK (below_minor >= 0),
    above_minor bigint      NOT NULL CHECK (above_minor >= 0),
    set_by      text        NOT NULL,
    set_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, operation, currency)
);

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['collections', 'provider_payments', 'provider_payment_names',
    'provider_payment_sources', 'provider_events', 'suspense_decisions', 'collection_tolerances']) t;

GRANT SELECT, INSERT ON fleet.collections TO fleet_app, fleet_worker;
GRANT SELECT ON fleet.provider_payments, fleet.provider_payment_sources, fleet.suspense_decisions,
    fleet.collection_tolerances TO fleet_app, fleet_worker;
GRANT INSERT ON fleet.provider_payments, fleet.provider_payment_sources TO fleet_worker;
GRANT SELECT, INSERT ON fleet.provider_payment_names, fleet.provider_events TO fleet_worker;
GRANT UPDATE (state, reason, intent_id, tenant_id, accounted_at) ON fleet.provider_payments TO fleet_worker;
GRANT UPDATE (consumed_by, consumed_at) ON fleet.provider_payments TO fleet_app, fleet_worker;
GRANT INSERT ON fleet.suspense_decisions TO fleet_app;
GRANT INSERT, UPDATE (below_minor, above_minor, set_by, set_at) ON fleet.collection_tolerances TO fleet_app;
