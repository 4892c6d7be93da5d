-- A limit has one calendar for all that it counts, decided once: until now it was that of whatever rail carried each
-- payment, and two periods of one limit were open at once where its operation had rails in two zones.
ALTER TABLE fleet.limits ADD COLUMN timezone text;  -- none of a quota; where it is missing, the tenant's

-- What is set already keeps the days that it had where there is one answer, and gets the tenant's where there is none.
ALTER TABLE fleet.limits DISABLE TRIGGER refuse_change;
UPDATE fleet.limits l SET timezone = coalesce(
    newest.body->>'timezone',
    (SELECT CASE count(DISTINCT z.zone) WHEN 1 THEN min(z.zone) END
    FROM fleet.routes r CROSS JOIN LATERAL (
        SELECT coalesce(g.body->'operations'->r.operation->>'business_timezone', 'UTC') AS zone
        FROM (SELECT body FROM fleet.rail_registrations WHERE rail = r.rail ORDER BY version DESC LIMIT 1) g
        WHERE g.body->'operations' ? r.operation) z
    WHERE r.tenant_id = l.tenant_id AND r.operation = newest.body->>'operation'
        AND r.currency = newest.body->>'currency' AND r.enabled
        AND (r.valid_until IS NULL OR r.valid_until > statement_timestamp())),
    (SELECT business_timezone FROM fleet.tenants t WHERE t.tenant_id = l.tenant_id),
    'UTC')
FROM (SELECT DISTINCT ON (limit_id) limit_id, version, body FROM fleet.limits ORDER BY limit_id, version DESC) newest
WHERE l.limit_id = newest.limit_id AND l.version = newest.version AND l.body->>'kind' <> 'QUOTA';
ALTER TABLE fleet.limits ENABLE TRIGGER refuse_change;
