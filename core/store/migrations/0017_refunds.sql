-- Which way the money of an intent goes, of an operation that knows several; NULL where it is the usual one.
ALTER TABLE fleet.intents ADD COLUMN direction text;
-- The payment that a refund is about.
ALTER TABLE fleet.intents ADD COLUMN original_intent_id uuid;
CREATE INDEX intents_by_original ON fleet.intents (original_intent_id) WHERE original_intent_id IS NOT NULL;
