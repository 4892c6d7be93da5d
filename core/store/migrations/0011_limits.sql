-- Limits: versions that are never edited, counters of what is held and used, and what each intent has at them.

ALTER TABLE fleet.tenants ADD COLUMN IF NOT EXISTS business_timezone text NOT NULL DEFAULT 'UTC';
ALTER TABLE fleet.wallets ADD COLUMN IF NOT EXISTS tier text NOT NULL DEFAULT '';
GRANT UPDATE (tier) ON fleet.wallets TO fleet_app, fleet_worker;

CREATE TABLE fleet.limit_books (
    tenant_id uuid   PRIMARY KEY,
    revision  bigint NOT NULL  -- rises with every version; a reader that knows it has nothing to load
);

CREATE TABLE fleet.limits (
    tenant_id  uuid        NOT NULL,
    limit_id   uuid        NOT NULL,
    version    integer     NOT NULL,
    name       text        NOT NULL,
    enabled    boolean     NOT NULL,
    body       jsonb       NOT NULL,  -- schemas.limits.LimitRequest
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text        NOT NULL,
    PRIMARY KEY (limit_id, version),
    UNIQUE (tenant_id, name, version)
);
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON fleet.limits
    FOR EACH STATEMENT EXECUTE FUNCTION fleet.refuse_change();

-- The counters: the sums over intents of what they have here, held while they are open, used once they settled.
CREATE TABLE fleet.limit_usage (
    tenant_id  uuid    NOT NULL,
    limit_id   uuid    NOT NULL,
    subject    text    COLLATE "C" NOT NULL,  -- a wallet's id, an owner or the tenant's id
    period     date    NOT NULL,              -- the first day of the day or month
    held_minor bigint  NOT NULL DEFAULT 0 CHECK (held_minor >= 0),
    used_minor bigint  NOT NULL DEFAULT 0 CHECK (used_minor >= 0),
    held_count integer NOT NULL DEFAULT 0 CHECK (held_count >= 0),
    used_count integer NOT NULL DEFAULT 0 CHECK (used_count >= 0),
    PRIMARY KEY (limit_id, subject, period)
) WITH (fillfactor = 50);  -- counters change in place: room for heap-only updates

-- {"held": [[limit, subject, period, amount, count], …]} or {"exceeded": {…}}: what ends an intent moves exactly this,
-- whatever became of the limits in between.
ALTER TABLE fleet.intents ADD COLUMN limits jsonb;
GRANT UPDATE (limits) ON fleet.intents TO fleet_app, fleet_worker;

SELECT fleet.confine_to_tenant(t) FROM unnest(ARRAY['limit_books', 'limits', 'limit_usage']) t;
GRANT SELECT, INSERT ON fleet.limit_books, fleet.limits, fleet.limit_usage TO fleet_app, fleet_worker;
GRANT UPDATE (revision) ON fleet.limit_books TO fleet_app, fleet_worker;
GRANT UPDATE (held_minor, used_minor, held_count, used_count) ON fleet.limit_usage TO fleet_app, fleet_worker;

-- Lock counters and return what they say; those that are missing are made. Whoever waits here waits in no circle:
-- missing ones are inserted in order before anything else is locked, then all are locked in the same order.
CREATE FUNCTION fleet.lock_limit_usage(p_tenants uuid[], p_limits uuid[], p_subjects text[], p_periods date[])
RETURNS TABLE (limit_id uuid, subject text, period date, amount_minor bigint, count bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO fleet.limit_usage AS u (tenant_id, limit_id, subject, period)
    SELECT k.* FROM unnest(p_tenants, p_limits, p_subjects, p_periods) AS k(tenant_id, limit_id, subject, period)
    WHERE NOT EXISTS (SELECT FROM fleet.limit_usage e
        WHERE e.limit_id = k.limit_id AND e.subject = k.subject COLLATE "C" AND e.period = k.period)
    ORDER BY k.limit_id, k.subject COLLATE "C", k.period
    ON CONFLICT DO NOTHING;
    RETURN QUERY
    SELECT u.limit_id, u.subject, u.period, u.held_minor + u.used_minor, u.held_count::bigint + u.used_count
    FROM fleet.limit_usage u
    WHERE (u.limit_id, u.subject, u.period) IN (
        SELECT k.limit_id, k.subject COLLATE "C", k.period
        FROM unnest(p_limits, p_subjects, p_periods) AS k(limit_id, subject, period))
    ORDER BY u.limit_id, u.subject, u.period FOR NO KEY UPDATE;
END $$;

-- Add to counters, locked in the one order. One row for each counter; false where one of them is missing.
CREATE FUNCTION fleet.move_limit_usage(
    p_limits uuid[], p_subjects text[], p_periods date[],
    p_held_minor bigint[], p_used_minor bigint[], p_held_count integer[], p_used_count integer[]
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    written integer;
BEGIN
    PERFORM FROM fleet.limit_usage u
    WHERE (u.limit_id, u.subject, u.period) IN (
        SELECT k.limit_id, k.subject COLLATE "C", k.period
        FROM unnest(p_limits, p_subjects, p_periods) AS k(limit_id, subject, period))
    ORDER BY u.limit_id, u.subject, u.period FOR NO KEY UPDATE;
    UPDATE fleet.limit_usage u SET
        held_minor = u.held_minor + k.held_minor, used_minor = u.used_minor + k.used_minor,
        held_count = u.held_count + k.held_count, used_count = u.used_count + k.used_count
    FROM unnest(p_limits, p_subjects, p_periods, p_held_minor, p_used_minor, p_held_count, p_used_count)
        AS k(limit_id, subject, period, held_minor, used_minor, held_count, used_count)
    WHERE u.limit_id = k.limit_id AND u.subject = k.subject COLLATE "C" AND u.period = k.period;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written = cardinality(p_limits);
END $$;
REVOKE ALL ON FUNCTION fleet.lock_limit_usage, fleet.move_limit_usage FROM PUBLIC;
GRANT EXECUTE ON FUNCTION fleet.lock_limit_usage, fleet.move_limit_usage TO fleet_app, fleet_worker;
