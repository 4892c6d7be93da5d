-- Payments in: what providers took back of them, by which return, and how each source told of them.

ALTER TABLE fleet.provider_payments
    -- Of an item in suspense: the part that its provider took back while it rested there.
    ADD COLUMN returned_minor bigint NOT NULL DEFAULT 0 CHECK (returned_minor >= 0 AND returned_minor < amount_minor),
    -- The RETURN that took this payment back, or waits to: there is one.
    ADD COLUMN returned_by uuid,
    -- When the core itself tells a fact again that the ledger would not book.
    ADD COLUMN retry_at timestamptz;
GRANT UPDATE (returned_minor, returned_by, retry_at) ON fleet.provider_payments TO fleet_worker;
CREATE INDEX provider_payments_by_return ON fleet.provider_payments (returned_by) WHERE returned_by IS NOT NULL;
CREATE INDEX provider_payment_names_by_payment ON fleet.provider_payment_names (payment_id);

-- Told again by the core itself, a fact must be the one that was told: booked or only announced, confirmed or not. Until
-- now no register or statement told of what was not booked.
ALTER TABLE fleet.provider_payment_sources
    ADD COLUMN status text NOT NULL DEFAULT 'PENDING' CHECK (status IN ('PENDING', 'SUCCEEDED', 'FAILED')),
    ADD COLUMN confirmed boolean NOT NULL DEFAULT false;
UPDATE fleet.provider_payment_sources SET status = 'SUCCEEDED' WHERE source IN ('REGISTER', 'STATEMENT', 'POLL');
ALTER TABLE fleet.provider_payment_sources
    DROP CONSTRAINT provider_payment_sources_payment_id_source_evidence_id_amou_key,
    ADD CONSTRAINT provider_payment_sources_once
        UNIQUE NULLS NOT DISTINCT (payment_id, source, evidence_id, amount_minor, currency, status, confirmed);

UPDATE fleet.provider_payments p SET returned_by = r.id
FROM fleet.provider_payment_names np
JOIN fleet.provider_payment_names nr USING (rail, provider_account, environment, name, recycled_on)
JOIN fleet.provider_payments r ON r.id = nr.payment_id AND r.state = 'REVERSED'
WHERE np.payment_id = p.id AND np.kind = 'PAYMENT' AND nr.kind = 'RETURN';
