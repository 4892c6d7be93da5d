-- Files that pay: stored before their first byte leaves, and never changed. A reference is in one live file at most.

CREATE TABLE fleet.rail_files (
    id         uuid        PRIMARY KEY,
    tenant_id  uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',  -- a file serves many tenants
    rail       text        NOT NULL,
    message_id text        NOT NULL,
    ciphertext bytea       NOT NULL,                                                 -- under the master key
    state      text        NOT NULL DEFAULT 'LIVE' CHECK (state IN ('LIVE', 'GIVEN_UP')),
    resends    integer     NOT NULL DEFAULT 0,
    stored_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (rail, message_id)
);

CREATE TABLE fleet.rail_file_members (
    file_id   uuid    NOT NULL REFERENCES fleet.rail_files,
    tenant_id uuid    NOT NULL,
    rail      text    NOT NULL,
    job_id    uuid    NOT NULL,
    reference text    NOT NULL,
    live      boolean NOT NULL DEFAULT true,  -- false once its file was given up: it never left
    PRIMARY KEY (file_id, reference)
);
CREATE UNIQUE INDEX rail_file_members_live ON fleet.rail_file_members (rail, reference) WHERE live;

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['rail_files', 'rail_file_members']) t;
GRANT SELECT, INSERT ON fleet.rail_files, fleet.rail_file_members TO fleet_worker;
GRANT UPDATE (state, resends) ON fleet.rail_files TO fleet_worker;
GRANT UPDATE (live) ON fleet.rail_file_members TO fleet_worker;
