"""The ledger engine in PostgreSQL."""
