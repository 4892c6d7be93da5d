-- The fees of an intent, as they were priced when it was accepted: legs of its chain, each naming its rule and version.
ALTER TABLE fleet.intents ADD COLUMN IF NOT EXISTS fee_legs jsonb;
