-- Intents that wait, held, for a decision; who a payment is made for; tenants that are made at run time.
ALTER TABLE fleet.intents ADD COLUMN requires_monitoring boolean NOT NULL DEFAULT false;
ALTER TABLE fleet.intents ADD COLUMN on_behalf_of jsonb;
-- Set exactly while the intent is in REVIEW. A column of its own, for the index's sake: one over `state` would make every
-- change of state rewrite the row's place in every index.
ALTER TABLE fleet.intents ADD COLUMN review_until timestamptz;
CREATE INDEX intents_in_review ON fleet.intents (tenant_id, id) WHERE review_until IS NOT NULL;
GRANT UPDATE (review_until) ON fleet.intents TO fleet_app, fleet_worker;

ALTER TABLE fleet.tenants ADD COLUMN created_by text NOT NULL DEFAULT '';
GRANT INSERT, UPDATE (name, business_timezone, returns_to) ON fleet.tenants TO fleet_worker;
