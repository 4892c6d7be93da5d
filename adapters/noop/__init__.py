"""A rail that moves nothing: for benchmarks and for reading."""
