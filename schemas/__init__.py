"""The contract: the only words that core and adapters share. Pydantic models, no I/O."""
