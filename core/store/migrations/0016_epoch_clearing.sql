-- Who clears a ledger epoch says on what proof.
ALTER TABLE fleet.ledger_epochs ADD COLUMN clear_reason text;
GRANT UPDATE (clear_reason) ON fleet.ledger_epochs TO fleet_worker;
