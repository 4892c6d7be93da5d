"""Redis Streams on the core side: relay, gate, result consumer, healer, sweeper, janitor."""
