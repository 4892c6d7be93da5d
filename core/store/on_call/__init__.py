"""Dead letters, redrives, the journal and the figures, in PostgreSQL."""
