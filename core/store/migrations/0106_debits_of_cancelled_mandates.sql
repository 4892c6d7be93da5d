-- Whether a direct debit's mandate was cancelled is asked with its permit, by the intent.
CREATE INDEX mandate_debits_by_intent ON fleet.mandate_debits (intent_id);
