-- A raised ledger epoch passes over the positions of events that a restore may have lost: nobody is told one twice.
GRANT UPDATE ON SEQUENCE fleet.event_positions TO fleet_worker;
