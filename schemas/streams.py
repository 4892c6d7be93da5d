"""Names of the streams and groups of a rail: the part of the wire that operators type into redis-cli."""

import re
from dataclasses import dataclass
from uuid import UUID

RAIL_PATTERN = re.compile(r"[a-z][a-z0-9_]{1,31}(\.[0-9]{1,3})?")
"""A rail, or one shard of it (`promptpay.0`)."""
RAIL_WORDS = "write small letters, digits and underscores, a letter first, such as promptpay"

SHARDS_MAX = 64
_KEY_PATTERN = re.compile(r"\{([a-z][a-z0-9_]*)(?:\.[0-9]+)?\}(:.+)")

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


@dataclass(frozen=True, slots=True)
class Part:
    """One of the `of` parts that a rail's jobs are spread over; each has streams of its own, in a slot of its own.

    The first keeps the rail's name, so that a rail which gets more parts leaves nothing behind.
    """

    number: int = 0
    of: int = 1

    def shard(self, rail: str) -> str:
        """Return the name that stands for the rail in this part's streams."""
        return rail if self.number == 0 else f"{rail}.{self.number}"

    def has(self, job_id: UUID) -> bool:
        """Return whether a job is in this part: by its id alone, so everyone comes to the same."""
        return (job_id.int & 0xFFFF) % self.of == self.number


WHOLE = Part()


def parts_of(count: int) -> list[Part]:
    """Return the parts of a rail that has so many."""
    return [Part(number, count) for number in range(count)]


def shards_of(rail: str, count: int) -> list[str]:
    """Return the names of a rail's shards."""
    return [part.shard(rail) for part in parts_of(count)]


def whole_stream(stream: str) -> str:
    """Return the stream of the whole rail, for that of one part. Raises ValueError."""
    found = _KEY_PATTERN.fullmatch(stream)
    if found is None:
        raise ValueError(f"not a stream of a rail: {stream!r}")
    return f"{{{found[1]}}}{found[2]}"


def shard_of(stream: str) -> str:
    """Return the shard whose stream this is."""
    return stream[1:].partition("}")[0]


def groups_of(rail: str) -> list[tuple[str, str]]:
    """Every (stream, group) that must exist before a rail can flow."""
    return [
        (jobs_stream(rail), ADAPTERS_GROUP),
        (control_stream(rail), ADAPTERS_GROUP),
        (results_stream(rail), CORE_GROUP),
        (jobs_dlq_stream(rail), CORE_GROUP),
    ]
