"""Keys, nonces, people and tenants, in PostgreSQL."""
