-- An account's movements in the order of their stamps, what was said about a payment, and an owner's wallets.

DROP INDEX fleet.transfers_by_debit;
DROP INDEX fleet.transfers_by_credit;
CREATE INDEX transfers_by_debit ON fleet.transfers (debit_account_id, created_at, id);
CREATE INDEX transfers_by_credit ON fleet.transfers (credit_account_id, created_at, id);
-- Holds with a time-out are few: no payment makes one.
CREATE INDEX transfers_by_timed_debit ON fleet.transfers (debit_account_id) WHERE expires_at IS NOT NULL;

ALTER TABLE fleet.intents ADD COLUMN comment text NOT NULL DEFAULT '';
