"""Writes what a new part of the system begins as."""
