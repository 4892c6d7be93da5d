-- Fee rules: versions that are never edited, and one row per tenant that tells when any of them was added.

-- Hours, days and months of a tenant's rules are those of its own clocks.
ALTER TABLE fleet.tenants ADD COLUMN IF NOT EXISTS business_timezone text NOT NULL DEFAULT 'UTC';

CREATE TABLE fleet.fee_books (
    tenant_id uuid   PRIMARY KEY,
    revision  bigint NOT NULL  -- rises with every version; a reader that knows it has nothing to load
);

CREATE TABLE fleet.fee_rules (
    tenant_id  uuid        NOT NULL,
    rule_id    uuid        NOT NULL,
    version    integer     NOT NULL,
    name       text        NOT NULL,
    operation  text        NOT NULL,
    currency   text        NOT NULL,
    enabled    boolean     NOT NULL,
    body       jsonb       NOT NULL,  -- schemas.fees.FeeRuleRequest
    valid_from timestamptz NOT NULL,  -- from here on it stands in for the versions before it
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text        NOT NULL,
    PRIMARY KEY (rule_id, version),
    UNIQUE (tenant_id, name, version)
);
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON fleet.fee_rules
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_change();

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['fee_books', 'fee_rules']) t;
GRANT SELECT, INSERT ON fleet.fee_books, fleet.fee_rules TO fleet_app, fleet_worker;
GRANT UPDATE (revision) ON fleet.fee_books TO fleet_app, fleet_worker;
