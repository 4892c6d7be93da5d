"""The HTTP face of the core."""
