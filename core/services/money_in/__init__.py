"""Money that arrives: collections, what providers report unasked, and suspense."""
