-- What a bank has sent, message by message as it numbers them, sealed: read from the bank once, whoever starts later.
CREATE TABLE fleet.rail_messages (
    tenant_id        uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',  -- a message tells of many
    rail             text        NOT NULL,
    provider_account text        NOT NULL,
    environment      text        NOT NULL,
    number           bigint      NOT NULL CHECK (number > 0),
    ciphertext       bytea       NOT NULL,  -- under the master key
    received_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (rail, provider_account, environment, number)
);
SELECT fleet.confine_to_tenant('rail_messages');
GRANT SELECT, INSERT ON fleet.rail_messages TO fleet_worker;
