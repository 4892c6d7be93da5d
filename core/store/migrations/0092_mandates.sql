-- The mandates that direct debits are drawn under, and which debit drew on which. Who signed is sealed.

CREATE TABLE fleet.mandates (
    tenant_id        uuid        NOT NULL,
    mandate_id       text        NOT NULL CHECK (mandate_id ~ '^[A-Z0-9-]{1,35}$'),
    wallet_id        uuid        NOT NULL,
    kind             text        NOT NULL CHECK (kind IN ('RECURRING', 'ONE_OFF')),
    signed_on        date        NOT NULL,
    valid_from       date        NOT NULL,
    valid_until      date        CHECK (valid_until >= valid_from),
    max_amount_minor bigint      CHECK (max_amount_minor > 0),  -- of one debit; NULL takes any
    debtor           bytea       NOT NULL,  -- account and name, under the master key
    account_masked   text        NOT NULL,
    created_by       text        NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    cancelled_at     timestamptz,
    PRIMARY KEY (tenant_id, mandate_id)
);

CREATE TABLE fleet.mandate_debits (
    tenant_id  uuid        NOT NULL,
    mandate_id text        NOT NULL,
    intent_id  uuid        NOT NULL,
    sequence   text        NOT NULL CHECK (sequence IN ('FRST', 'RCUR', 'FNAL', 'OOFF')),
    PRIMARY KEY (tenant_id, mandate_id, intent_id),
    FOREIGN KEY (tenant_id, mandate_id) REFERENCES fleet.mandates
);

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['mandates', 'mandate_debits']) t;
GRANT SELECT, INSERT ON fleet.mandates, fleet.mandate_debits TO fleet_app, fleet_worker;
GRANT UPDATE (cancelled_at) ON fleet.mandates TO fleet_app, fleet_worker;
