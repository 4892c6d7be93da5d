"""What people on call ask for and see of rails and streams, and of one payment: pauses, repairs, what is masked."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from schemas.base import Contract
from schemas.on_call import Reason
from schemas.operations import OperationType
from schemas.permits import Payee

ConsumerName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[!-~]+$")]
Seconds = Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)]


class RailPausedView(Contract):
    """One pause: of an operation, or with `*` of the whole rail."""

    operation: str
    reason: str
    by: str
    since: datetime


class RailWaitView(Contract):
    """What cannot go on though nobody paused it."""

    operation: str
    cause: str
    since: datetime


class RailView(Contract):
    """A rail that has registered, what of it is paused, and what waits."""

    rail: str
    provider: str | None
    provider_account: str | None
    version: int
    registered_at: datetime
    pauses: tuple[RailPausedView, ...]
    waits: tuple[RailWaitView, ...]


class RailList(Contract):
    """Every rail that has registered."""

    items: tuple[RailView, ...]


class RailEventView(Contract):
    """Who paused or resumed a rail and why, or when it had to wait."""

    at: datetime
    type: str
    operation: str
    actor: str
    reason: str
    moved: int | None
    """How many deadlines the end of a pause moved."""


class RailEventList(Contract):
    """What happened to a rail, the newest first."""

    items: tuple[RailEventView, ...]


class RailPause(Contract):
    """Give no first permits any more; left out, the operation is every one of the rail's."""

    reason: Reason
    operation: OperationType | None = None


class RailResume(Contract):
    """Give first permits again."""

    operation: OperationType | None = None


class RailChanged(Contract):
    """What a pause or its end changed."""

    rail: str
    operation: str
    paused: bool
    changed: bool
    """False where it was so already."""
    deadlines_moved: int
    still_paused: tuple[str, ...] = ()
    """What of the rail stays paused after a `resume`: each operation by itself, `*` for every one of them."""


class StreamConsumerView(Contract):
    """Who reads a stream."""

    name: str
    pending: int
    idle_s: int


class StreamStatusView(Contract):
    """One stream's group: what waits there, what is held, and by whom."""

    rail: str
    """The rail, or the shard of it, such as promptpay.1."""
    stream: str
    group: str
    group_exists: bool
    length: int
    lag: int | None
    """None where the server lost count."""
    pending: int
    oldest_idle_s: int | None
    consumers: tuple[StreamConsumerView, ...]


class StreamStatusList(Contract):
    """The streams of every rail."""

    items: tuple[StreamStatusView, ...]


class HeldEntryView(Contract):
    """An entry that a consumer has and has not finished."""

    stream: str
    id: str
    consumer: str
    idle_s: float
    deliveries: int


class HeldEntryList(Contract):
    """What is held, the oldest entries first; at most 1,000 of a stream."""

    items: tuple[HeldEntryView, ...]


class JobWithoutEntry(Contract):
    """A queued job whose entry is gone."""

    job_id: str
    stream: str
    entry_id: str


class StaleEntry(Contract):
    """An entry whose job is closed, unknown, or waits elsewhere."""

    stream: str
    id: str
    job: str


class StreamDifference(Contract):
    """What a rail's streams and PostgreSQL disagree about."""

    rail: str
    queued: int
    entries: int
    lost: tuple[JobWithoutEntry, ...]
    acked: tuple[JobWithoutEntry, ...]
    stale: tuple[StaleEntry, ...]
    requeued: int | None = None
    """How many were queued again; None where nothing was to be changed."""


class StreamRelease(Contract):
    """Give back what a consumer holds untouched for longer than `idle_s`."""

    reason: Reason
    consumer: ConsumerName
    idle_s: Seconds = 60


class StreamClaim(Contract):
    """Hand what a consumer holds untouched for longer than `idle_s` to another."""

    reason: Reason
    consumer: ConsumerName
    to: ConsumerName
    idle_s: Seconds = 60


class StreamRepairAsked(Contract):
    """Rebuild or trim a rail's streams; of a rebuild, only what has been so for longer than `age_s`."""

    reason: Reason
    age_s: Seconds = 30


class StreamMoved(Contract):
    """How many entries were given back or handed over."""

    rail: str
    entries: int


class TidiedView(Contract):
    """What was taken out of one stream."""

    stream: str
    trimmed: int
    consumers_dropped: int


class TidiedList(Contract):
    """What was taken out of a rail's streams."""

    items: tuple[TidiedView, ...]


class RevealAsked(Contract):
    """Show one payment's personal data; the journal keeps who asked and why."""

    reason: Reason


class RevealedView(Contract):
    """Who is paid, and what they are told, in the clear."""

    payee: Payee | None
    message: str


class ProviderAsked(Contract):
    """How many of a payment's jobs ask the provider now; 0 where nothing waits for an answer."""

    asked: int
