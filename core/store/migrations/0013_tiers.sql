-- The tier of a wallet, such as a KYC level: fee rules may depend on it. Empty where none was given.
ALTER TABLE fleet.wallets ADD COLUMN IF NOT EXISTS tier text NOT NULL DEFAULT '';
