"""Payments that came in, and suspense, in PostgreSQL."""
