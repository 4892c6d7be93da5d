"""Wallets and what is projected of them, in PostgreSQL."""
