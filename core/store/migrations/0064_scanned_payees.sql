-- The parts of a payment code that a payee came as, with its references masked; the payee itself is sealed as any other.
ALTER TABLE fleet.intents ADD COLUMN payee_qr jsonb;
