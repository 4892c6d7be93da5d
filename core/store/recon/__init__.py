"""Breaks, registers and their matching, in PostgreSQL."""
