-- Webhooks out: where each tenant wants its events sent, and what became of each.

CREATE TABLE fleet.webhook_endpoints (
    id              uuid        PRIMARY KEY,
    tenant_id       uuid        NOT NULL,
    url             text        NOT NULL,
    event_types     text[]      NOT NULL DEFAULT '{}',  -- empty: all
    ordering        text        NOT NULL DEFAULT 'INTENT' CHECK (ordering IN ('INTENT', 'ENDPOINT')),
    secret          bytea       NOT NULL,               -- encrypted under the master key
    secret_before   bytea,                              -- the other live secret after a rotation
    enabled         boolean     NOT NULL DEFAULT true,
    disabled_reason text,
    position        bigint      NOT NULL,               -- every event up to here has its delivery
    created_by      text        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    rotated_at      timestamptz,
    deleted_at      timestamptz
);
CREATE INDEX webhook_endpoints_by_tenant ON fleet.webhook_endpoints (tenant_id, id);

-- due_at is also the lease: who takes a delivery moves it, and a taker that died gives it back by not moving it again.
CREATE TABLE fleet.webhook_deliveries (
    endpoint_id  uuid        NOT NULL,
    position     bigint      NOT NULL,
    tenant_id    uuid        NOT NULL,
    intent_id    uuid        NOT NULL,
    seq          integer     NOT NULL,
    type         text        NOT NULL,
    state        text        NOT NULL DEFAULT 'PENDING' CHECK (state IN ('PENDING', 'DELIVERED', 'DEAD')),
    attempts     integer     NOT NULL DEFAULT 0,
    due_at       timestamptz NOT NULL DEFAULT now(),
    status       integer,                               -- of the last answer; NULL where there was none
    error        text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    PRIMARY KEY (endpoint_id, position)
) WITH (fillfactor = 70);
CREATE INDEX webhook_deliveries_pending ON fleet.webhook_deliveries (endpoint_id, position) WHERE state = 'PENDING';
CREATE INDEX webhook_deliveries_in_turn ON fleet.webhook_deliveries (endpoint_id, intent_id, position)
    WHERE state = 'PENDING';
CREATE INDEX webhook_deliveries_dead ON fleet.webhook_deliveries (endpoint_id, position) WHERE state = 'DEAD';

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['webhook_endpoints', 'webhook_deliveries']) t;
GRANT SELECT, INSERT ON fleet.webhook_endpoints, fleet.webhook_deliveries TO fleet_app, fleet_worker;
GRANT UPDATE (secret, secret_before, rotated_at, enabled, disabled_reason, position, deleted_at)
    ON fleet.webhook_endpoints TO fleet_app, fleet_worker;
GRANT UPDATE (state, attempts, due_at, status, error, ended_at) ON fleet.webhook_deliveries TO fleet_app, fleet_worker;
