"""A payment from its request to its job: planned, held, confirmed, reviewed, cancelled, refunded."""
