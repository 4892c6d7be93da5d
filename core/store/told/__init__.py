"""The log of events and the queue of webhooks, in PostgreSQL."""
