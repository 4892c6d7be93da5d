-- Exchange: the terms of pairs and their rates, as versions that are never edited.

CREATE TABLE fleet.exchange_books (
    tenant_id uuid   PRIMARY KEY,
    revision  bigint NOT NULL  -- rises with every change; who changes something waits for who did before
);

CREATE TABLE fleet.exchange_pairs (
    tenant_id           uuid        NOT NULL,
    base                text        NOT NULL,
    counter             text        NOT NULL CHECK (counter <> base),
    version             integer     NOT NULL,
    enabled             boolean     NOT NULL,
    spread_basis_points integer     NOT NULL CHECK (spread_basis_points BETWEEN 0 AND 5000),
    rate_max_age_s      integer     NOT NULL CHECK (rate_max_age_s > 0),
    quote_ttl_s         integer     NOT NULL CHECK (quote_ttl_s > 0),
    created_at          timestamptz NOT NULL,
    created_by          text        NOT NULL,
    PRIMARY KEY (tenant_id, base, counter, version)
);

-- One unit of base is worth units / 10^scale units of counter.
CREATE TABLE fleet.exchange_rates (
    tenant_id   uuid        NOT NULL,
    base        text        NOT NULL,
    counter     text        NOT NULL,
    version     integer     NOT NULL,
    units       bigint      NOT NULL CHECK (units > 0),
    scale       smallint    NOT NULL CHECK (scale BETWEEN 0 AND 12),
    source      text        NOT NULL,
    observed_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    recorded_by text        NOT NULL,
    PRIMARY KEY (tenant_id, base, counter, version)
);
-- The rate in force is the one observed last, of equals the one recorded last: old ones may be imported later.
CREATE INDEX exchange_rates_in_force ON fleet.exchange_rates (tenant_id, base, counter, observed_at, version);

CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON fleet.exchange_pairs
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON fleet.exchange_rates
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_change();

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['exchange_books', 'exchange_pairs', 'exchange_rates']) t;
GRANT SELECT, INSERT ON fleet.exchange_books, fleet.exchange_pairs, fleet.exchange_rates TO fleet_app, fleet_worker;
GRANT UPDATE (revision) ON fleet.exchange_books TO fleet_app, fleet_worker;
