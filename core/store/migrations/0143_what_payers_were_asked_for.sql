-- What the payer of a collection was asked for, where fees are on top; NULL where that is the amount, as in every row of
-- a release that asked for no fees on top. So no row is rewritten; nor is a CHECK given, which would read them all under
-- a lock.
ALTER TABLE fleet.intents ADD COLUMN asked_minor bigint;
