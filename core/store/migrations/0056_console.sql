-- Who works in the console, with which role, and the sessions that they opened. Under the worker role alone: a session is
-- looked up before the tenant is known, and the application never needs one.
CREATE TABLE fleet.people (
    id         uuid        PRIMARY KEY,
    tenant_id  uuid        NOT NULL,                  -- whose rows they see; the system's people see every tenant's
    name       text        NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._@+-]{0,63}$'),
    role       text        NOT NULL CHECK (role IN ('viewer', 'operator', 'approver', 'admin')),
    issuer     text,                                  -- of those whom an identity provider signs in
    subject    text,
    secret     text,                                  -- the scrypt of a local person's password
    created_by text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    CHECK ((issuer IS NULL) = (subject IS NULL)),
    CHECK ((secret IS NULL) <> (subject IS NULL))
);
CREATE UNIQUE INDEX people_by_subject ON fleet.people (issuer, subject) WHERE subject IS NOT NULL;

-- The cookie itself is kept nowhere.
CREATE TABLE fleet.console_sessions (
    hash          bytea       PRIMARY KEY,
    tenant_id     uuid        NOT NULL,
    person_id     uuid        NOT NULL REFERENCES fleet.people,
    acting_tenant uuid,                               -- whose payments one of the system's people looks at
    created_at    timestamptz NOT NULL DEFAULT now(),
    seen_at       timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL
);
CREATE INDEX console_sessions_by_person ON fleet.console_sessions (person_id);

-- Wrong passwords by name, whether anybody has that name or not.
CREATE TABLE fleet.console_attempts (
    name_hash     bytea       PRIMARY KEY,
    tenant_id     uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    failures      integer     NOT NULL,
    last_at       timestamptz NOT NULL DEFAULT now(),
    blocked_until timestamptz NOT NULL DEFAULT now()
);

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['people', 'console_sessions', 'console_attempts']) t;
GRANT SELECT, INSERT ON fleet.people TO fleet_worker;
GRANT UPDATE (role, secret, tenant_id, revoked_at) ON fleet.people TO fleet_worker;
GRANT SELECT, INSERT, DELETE ON fleet.console_sessions, fleet.console_attempts TO fleet_worker;
GRANT UPDATE (seen_at, acting_tenant) ON fleet.console_sessions TO fleet_worker;
GRANT UPDATE (failures, last_at, blocked_until) ON fleet.console_attempts TO fleet_worker;

CREATE TRIGGER audit_insert AFTER INSERT ON fleet.people REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.audit_change();
CREATE TRIGGER audit_update AFTER UPDATE ON fleet.people REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.audit_change();
