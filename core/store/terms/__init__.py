"""Routes, fees, limits, rates and quotes, in PostgreSQL."""
