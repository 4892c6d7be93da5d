-- What makes a rail's unsent payments wait though nobody paused it: streams that cannot be reached, a provider whose
-- breaker is open. Who sees it says so again and again; a row that nobody renews ends, and gives its time back.
CREATE TABLE fleet.rail_waits (
    tenant_id   uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    rail        text        NOT NULL,
    operation   text        NOT NULL DEFAULT '*',
    cause       text        NOT NULL CHECK (cause IN ('dispatch', 'breaker')),
    began_at    timestamptz NOT NULL DEFAULT now(),
    holds_until timestamptz NOT NULL,
    PRIMARY KEY (rail, operation, cause)
);

-- What happened to a rail, and who did it. Appended only.
CREATE TABLE fleet.rail_events (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    rail      text        NOT NULL,
    operation text        NOT NULL,
    type      text        NOT NULL CHECK (type IN ('paused', 'resumed', 'wait_began', 'wait_ended')),
    actor     text        NOT NULL,
    reason    text        NOT NULL DEFAULT '',
    moved     integer     NOT NULL DEFAULT 0,  -- payments that got the time back
    at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX rail_events_of_rail ON fleet.rail_events (rail, id);

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['rail_waits', 'rail_events']) t;
CREATE POLICY app_reads_system ON fleet.rail_waits FOR SELECT TO fleet_app
    USING (tenant_id = '00000000-0000-0000-0000-000000000000');
GRANT SELECT ON fleet.rail_waits TO fleet_app, fleet_worker;
GRANT INSERT, DELETE, UPDATE (holds_until) ON fleet.rail_waits TO fleet_worker;
GRANT SELECT, INSERT ON fleet.rail_events TO fleet_worker;

-- The tenants whose payments a rail's key may carry; NULL is every tenant.
ALTER TABLE fleet.service_keys ADD COLUMN serves uuid[];
