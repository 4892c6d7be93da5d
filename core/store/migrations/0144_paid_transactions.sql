-- Which payment of ours a provider's transaction paid: one transaction pays one, whoever tells of it and how often. What
-- is partitioned by time has no key over all of its parts, so this is a table of its own, as narrow as it can be: a row
-- is written with every payment out that settles, in the statement that moves it.
CREATE TABLE fleet.paid_transactions (
    claim     bytea PRIMARY KEY,  -- a hash of rail, provider account, environment, kind of job and transaction
    tenant_id uuid  NOT NULL,
    intent_id uuid  NOT NULL
);
-- By age, for the purge: an intent's id begins with its time.
CREATE INDEX paid_transactions_by_age ON fleet.paid_transactions USING brin (intent_id);

SELECT fleet.confine_to_tenant('paid_transactions');
GRANT SELECT, INSERT ON fleet.paid_transactions TO fleet_worker;

INSERT INTO fleet.retention VALUES
('paid_transactions', 'paid_transactions', 'claim', 't.intent_id < fleet.first_id_at($1)', '90 days');
