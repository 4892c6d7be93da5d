-- Quotes of exchange, each used once at most, and what an exchange was agreed on beside its intent.

CREATE TABLE fleet.quotes (
    id                     uuid        NOT NULL,
    tenant_id              uuid        NOT NULL,
    service_key_id         text        NOT NULL,
    wallet_id              uuid        NOT NULL,
    counterparty_wallet_id uuid        NOT NULL CHECK (counterparty_wallet_id <> wallet_id),
    from_currency          text        NOT NULL,
    to_currency            text        NOT NULL CHECK (to_currency <> from_currency),
    from_minor             bigint      NOT NULL CHECK (from_minor > 0),
    to_minor               bigint      NOT NULL CHECK (to_minor > 0),
    spread_minor           bigint      NOT NULL CHECK (spread_minor >= 0),
    side                   text        NOT NULL CHECK (side IN ('FROM', 'TO')),  -- the amount that was asked for
    base                   text        NOT NULL,
    counter                text        NOT NULL,
    rate_units             bigint      NOT NULL,
    rate_scale             smallint    NOT NULL,
    rate_version           integer     NOT NULL,
    spread_basis_points    integer     NOT NULL,
    created_at             timestamptz NOT NULL,
    expires_at             timestamptz NOT NULL,
    intent_id              uuid,  -- the exchange that used it; set once
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
INSERT INTO fleet.partitioned_tables (table_name, append_only, storage) VALUES ('quotes', false, 'fillfactor = 80');
SELECT fleet.ensure_partitions(1, 3);

SELECT fleet.confine_to_tenant('quotes');
GRANT SELECT, INSERT ON fleet.quotes TO fleet_app, fleet_worker;
GRANT UPDATE (intent_id) ON fleet.quotes TO fleet_app, fleet_worker;

-- {"quote_id", "currency", "to_minor", "spread_minor"} of an EXCHANGE: what its legs in the other ledger are made of.
ALTER TABLE fleet.intents ADD COLUMN exchange jsonb;
