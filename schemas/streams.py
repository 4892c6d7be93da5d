"""Names of the streams and groups of a rail: the part of the wire that operators type into redis-cli."""

import re

RAIL_PATTERN = re.compile(r"[a-z][a-z0-9_]{1,31}(\.[0-9]{1,3})?")
"""A rail, or one shard of it (`promptpay.0`)."""

ADAPTERS_GROUP = "adapters"
CORE_GROUP = "core"


def _stream(rail: str, suffix: str) -> str:
    if RAIL_PATTERN.fullmatch(rail) is None:
        raise ValueError(f"not a rail name: {rail!r}")
    # The braces are the cluster's hash tag: all streams of one rail live in one slot.
    return f"{{{rail}}}:{suffix}"


def jobs_stream(rail: str) -> str:
    """Lookups, payments, collections and refunds on their way to the adapter."""
    return _stream(rail, "jobs")


def control_stream(rail: str) -> str:
    """Inquiries and cancels, with concurrency of their own."""
    return _stream(rail, "control")


def results_stream(rail: str) -> str:
    """Verdicts on their way to the core."""
    return _stream(rail, "results")


def jobs_dlq_stream(rail: str) -> str:
    """Dead jobs on their way into PostgreSQL."""
    return _stream(rail, "jobs.dlq")


def results_dlq_stream(rail: str) -> str:
    """A mirror of unusable results, for watchers."""
    return _stream(rail, "results.dlq")


def rate_bucket(rail: str) -> str:
    """The token bucket that the instances of the rail's adapter share: no stream, but in the same slot."""
    return _stream(rail, "rate")


def groups_of(rail: str) -> list[tuple[str, str]]:
    """Every (stream, group) that must exist before a rail can flow."""
    return [
        (jobs_stream(rail), ADAPTERS_GROUP),
        (control_stream(rail), ADAPTERS_GROUP),
        (results_stream(rail), CORE_GROUP),
        (jobs_dlq_stream(rail), CORE_GROUP),
    ]
