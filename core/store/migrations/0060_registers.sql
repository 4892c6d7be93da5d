-- Registers: what providers and banks say they did on a business day of theirs, kept line by line, and the runs that
-- compare them with jobs, payments and the ledger. A register speaks of many tenants: its rows are the system's.

CREATE TABLE fleet.register_files (
    id               uuid        PRIMARY KEY,
    tenant_id        uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    rail             text        NOT NULL,
    provider_account text        NOT NULL,
    environment      text        NOT NULL,
    business_day     date        NOT NULL,
    section          text        NOT NULL DEFAULT '',     -- where a day comes as several files
    source           text        NOT NULL CHECK (source IN ('FETCHED', 'IMPORTED')),
    name             text        NOT NULL DEFAULT '',
    file_hash        bytea,                               -- SHA-256, known once the file is whole
    state            text        NOT NULL DEFAULT 'LOADING'
        CHECK (state IN ('LOADING', 'COMPLETE', 'ABSENT', 'SUPERSEDED')),
    lines            integer     NOT NULL DEFAULT 0,
    received_by      text        NOT NULL,
    received_at      timestamptz NOT NULL DEFAULT now(),
    completed_at     timestamptz
);
-- One register of a day counts; a newer edition takes its place. The same bytes again are the same register.
CREATE UNIQUE INDEX register_files_that_count ON fleet.register_files
    (rail, provider_account, environment, business_day, section) WHERE state IN ('COMPLETE', 'ABSENT');
CREATE UNIQUE INDEX register_files_loading ON fleet.register_files
    (rail, provider_account, environment, business_day, section, source) WHERE state = 'LOADING';

-- The lines of a file are in the partition of its id: ids carry time.
CREATE TABLE fleet.register_lines (
    file_id      uuid        NOT NULL,
    line         integer     NOT NULL CHECK (line > 0),
    tenant_id    uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    provider_ref text        NOT NULL,
    our_ref      text        NOT NULL,
    operation    text        NOT NULL CHECK (operation IN ('PAYMENT', 'REFUND', 'RETURN')),
    direction    text        NOT NULL CHECK (direction IN ('IN', 'OUT')),
    amount_minor bigint      NOT NULL CHECK (amount_minor >= 0),
    fee_minor    bigint      CHECK (fee_minor >= 0),      -- NULL where the register does not tell it
    currency     text        NOT NULL,
    status       text        NOT NULL CHECK (status IN ('SETTLED', 'PENDING', 'FAILED', 'RETURNED')),
    at           timestamptz NOT NULL,
    PRIMARY KEY (file_id, line)
) PARTITION BY RANGE (file_id);
INSERT INTO fleet.partitioned_tables (table_name, append_only) VALUES ('register_lines', false);
SELECT fleet.ensure_partitions(0, 1);

-- The bytes of imported files, a piece of each at a time, under the master key.
CREATE TABLE fleet.register_pieces (
    file_id    uuid    NOT NULL REFERENCES fleet.register_files (id),
    place      integer NOT NULL,
    tenant_id  uuid    NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    ciphertext bytea   NOT NULL,
    PRIMARY KEY (file_id, place)
);

-- Which registers adapters shall fetch: the core's cursor. Asked for again, a day is fetched again.
CREATE TABLE fleet.register_days (
    tenant_id        uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    rail             text        NOT NULL,
    provider_account text        NOT NULL,
    environment      text        NOT NULL,
    business_day     date        NOT NULL,
    wanted_at        timestamptz NOT NULL DEFAULT now(),
    fetched_at       timestamptz,
    PRIMARY KEY (rail, provider_account, environment, business_day)
);
CREATE INDEX register_days_wanted ON fleet.register_days (rail, business_day)
    WHERE fetched_at IS NULL OR fetched_at < wanted_at;

CREATE TABLE fleet.register_runs (
    id               uuid        PRIMARY KEY,
    tenant_id        uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    rail             text        NOT NULL,
    provider_account text        NOT NULL,
    environment      text        NOT NULL,
    business_day     date        NOT NULL,
    register_state   text        NOT NULL,                -- COMPLETE, ABSENT or MISSING: what there was to compare with
    tallies          jsonb       NOT NULL,
    breaks           integer     NOT NULL,
    new_breaks       integer     NOT NULL,
    gone             integer     NOT NULL,
    run_by           text        NOT NULL,
    started_at       timestamptz NOT NULL,
    finished_at      timestamptz NOT NULL
);
CREATE INDEX register_runs_by_day ON fleet.register_runs (business_day, rail, provider_account, environment, id);

-- What lies so near a day's edge that the next day's register may have it: not a break yet, and told with its age.
CREATE TABLE fleet.register_carried (
    run_id       uuid        NOT NULL REFERENCES fleet.register_runs (id),
    subject_id   uuid        NOT NULL,
    tenant_id    uuid        NOT NULL,
    intent_id    uuid,
    reference    text        NOT NULL,
    amount_minor bigint      NOT NULL,
    currency     text        NOT NULL,
    booked_at    timestamptz NOT NULL,
    PRIMARY KEY (run_id, subject_id)
);

-- A break that a register told of: where, about which day, under which reference, and which payment of ours it is.
ALTER TABLE fleet.breaks
    ADD COLUMN rail             text NOT NULL DEFAULT '',
    ADD COLUMN provider_account text NOT NULL DEFAULT '',
    ADD COLUMN environment      text NOT NULL DEFAULT '',
    ADD COLUMN business_day     date,
    ADD COLUMN reference        text NOT NULL DEFAULT '',
    ADD COLUMN intent_id        uuid;
CREATE INDEX breaks_by_day ON fleet.breaks (business_day, rail) WHERE business_day IS NOT NULL;
-- By what a day's money in is found.
CREATE INDEX provider_payments_by_day ON fleet.provider_payments (rail, occurred_at);

-- Lines may go only while their file is not whole.
CREATE FUNCTION fleet.drop_loading_register(loading uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM FROM fleet.register_files WHERE id = loading AND state = 'LOADING' FOR UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    DELETE FROM fleet.register_pieces WHERE file_id = loading;
    DELETE FROM fleet.register_lines WHERE file_id = loading;
    DELETE FROM fleet.register_files WHERE id = loading;
END $$;
REVOKE ALL ON FUNCTION fleet.drop_loading_register FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.drop_loading_register TO fleet_worker;

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['register_files', 'register_lines', 'register_pieces',
    'register_days', 'register_runs', 'register_carried']) t;

GRANT SELECT, INSERT ON fleet.register_files, fleet.register_lines, fleet.register_pieces, fleet.register_days,
    fleet.register_runs, fleet.register_carried TO fleet_worker;
GRANT UPDATE (state, lines, file_hash, name, completed_at) ON fleet.register_files TO fleet_worker;
GRANT UPDATE (wanted_at, fetched_at) ON fleet.register_days TO fleet_worker;
GRANT UPDATE (business_day) ON fleet.breaks TO fleet_worker;
