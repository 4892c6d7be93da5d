-- From here on a payer is asked for the fees on top, too. Who was asked before was not: what they were asked for is
-- noted as what was confirmed, so that it is still what is expected, and what was received.
UPDATE fleet.intents SET confirmed_minor = amount_minor
WHERE operation IN ('TOPUP', 'DEPOSIT', 'DIRECT_DEBIT') AND direction IS NULL AND confirmed_minor IS NULL
    AND fee_legs @> '[{"phase": "PRE"}]';
