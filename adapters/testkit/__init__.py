"""Conformance suite and the base of the provider simulators."""
