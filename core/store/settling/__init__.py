"""Jobs, permits, facts and evidence, the outbox and the rails, in PostgreSQL."""
