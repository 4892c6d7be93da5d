"""The ledger and payment service."""
