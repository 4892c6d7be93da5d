-- A name that no calendar knows would leave every payment of the tenant without a price: it is refused where it is set.
ALTER TABLE fleet.tenants ADD CONSTRAINT business_timezone_known CHECK (
    business_timezone ~ '^[A-Z][A-Za-z]+(/[A-Za-z0-9_+-]+)*$'
    AND timestamptz '2026-01-01 00:00:00+00' AT TIME ZONE business_timezone IS NOT NULL);
