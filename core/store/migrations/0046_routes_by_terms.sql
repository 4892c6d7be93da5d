-- Several routes of an operation and currency: the first by priority that takes the amount and the payee, and whose rail
-- does not wait, carries the payment. A route's terms are a version of it; none is edited.
ALTER TABLE fleet.routes
    ADD COLUMN version integer NOT NULL DEFAULT 1 CHECK (version > 0),
    ADD COLUMN priority integer NOT NULL DEFAULT 100 CHECK (priority BETWEEN 0 AND 1000),
    ADD COLUMN min_amount_minor bigint CHECK (min_amount_minor > 0),
    ADD COLUMN max_amount_minor bigint CHECK (max_amount_minor >= coalesce(min_amount_minor, 1)),
    ADD COLUMN payee_types text[] CHECK (cardinality(payee_types) > 0),
    ADD COLUMN valid_until timestamptz CHECK (valid_until > valid_from),
    ADD COLUMN created_by text NOT NULL DEFAULT '';
UPDATE fleet.routes r SET version = n.version FROM (
    SELECT id, row_number() OVER (PARTITION BY tenant_id, operation, currency, rail ORDER BY valid_from, id) AS version
    FROM fleet.routes) n
WHERE n.id = r.id;
