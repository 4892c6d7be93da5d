-- A relay that puts off what is paused locks the pause against its end, and a lock of a row asks for the right to change
-- some column of it.
GRANT UPDATE (reason) ON fleet.rail_pauses TO fleet_worker;
