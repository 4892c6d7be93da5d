-- Where the money goes that a provider gives back of a settled payment: to the wallet that paid, or to suspense, for a
-- person to look at.
ALTER TABLE fleet.tenants ADD COLUMN returns_to text NOT NULL DEFAULT 'WALLET' CHECK (returns_to IN ('WALLET', 'SUSPENSE'));
