"""Intents and the keys they were asked under, in PostgreSQL."""
