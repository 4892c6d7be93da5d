"""PostgreSQL: SQL, migrations, the batching ledger."""
