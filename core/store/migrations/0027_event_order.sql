-- One order of all events for whoever follows them, and how writers learn that somebody listens.

-- Taken in the statement that changed the intent, under its lock: of one intent the positions rise with seq. Of several
-- they are taken before their transactions commit, so a reader stops where something older may still be open: ADR 13.
-- The sequence must not cache: a session that kept numbers would break the order within an intent.
CREATE SEQUENCE fleet.event_positions CACHE 1;
GRANT USAGE ON SEQUENCE fleet.event_positions TO fleet_app, fleet_worker;
GRANT SELECT ON SEQUENCE fleet.event_positions TO fleet_worker;
ALTER TABLE fleet.intent_events ADD COLUMN position bigint NOT NULL DEFAULT nextval('fleet.event_positions');
CREATE INDEX intent_events_by_position ON fleet.intent_events (tenant_id, position);

-- Until when, in seconds since 1970, somebody wants to be woken by new events. A notification makes commits wait for
-- each other, so none is sent while nobody listens. It is a sequence, because every writer reads it: no row version,
-- no row security, seen at once by all.
CREATE SEQUENCE fleet.events_wanted_until;
GRANT SELECT ON SEQUENCE fleet.events_wanted_until TO fleet_app, fleet_worker;
GRANT UPDATE ON SEQUENCE fleet.events_wanted_until TO fleet_worker;
