-- A bank may number its messages anew. What was kept before then stays as it is and is used no more: a new series begins.
ALTER TABLE fleet.rail_messages ADD COLUMN series integer NOT NULL DEFAULT 1 CHECK (series > 0);
ALTER TABLE fleet.rail_messages DROP CONSTRAINT rail_messages_pkey;
ALTER TABLE fleet.rail_messages ADD CONSTRAINT rail_messages_pkey
    PRIMARY KEY (rail, provider_account, environment, series, number);
