-- A key whose every request must say for which user it is made; its requests reach that user's wallets alone.
ALTER TABLE fleet.service_keys ADD COLUMN acts_for_users boolean NOT NULL DEFAULT false;
