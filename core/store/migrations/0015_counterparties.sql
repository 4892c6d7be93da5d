-- The other wallet of an operation between two of the tenant's wallets; NULL where a provider pays somebody outside.
ALTER TABLE fleet.intents ADD COLUMN IF NOT EXISTS counterparty_wallet_id uuid;
