"""Logging, metrics and tracing of the core."""
