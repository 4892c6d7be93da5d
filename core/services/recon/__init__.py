"""Reconciliation of the books with themselves and with the registers of providers."""
