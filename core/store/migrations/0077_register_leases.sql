-- A day's register is fetched by one adapter at a time: whom it was asked of last, it is left to while lines come.
ALTER TABLE fleet.register_days ADD COLUMN leased_until timestamptz;
GRANT UPDATE (leased_until) ON fleet.register_days TO fleet_worker;
