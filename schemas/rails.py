"""What a rail declares about itself when its adapter starts; the core's policy follows from these records."""

from datetime import time
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from schemas.base import Contract, Flag
from schemas.envelope import ENVELOPE_VERSION
from schemas.jobs import AmountMinor, CurrencyCode, RailName
from schemas.operations import OperationType

Seconds = Annotated[int | float, Field(gt=0)]


class Capabilities(Contract):
    """What a provider can do for one operation. The core chooses the strictest rule that this allows."""

    lookup: Flag = False
    inquiry: Flag = False
    deduplicates_reference: Flag = False
    dedup_window_s: Seconds | None = None
    """How long the provider remembers a reference; None where it never forgets."""
    cancel_by_reference: Flag = False
    """A tombstone: also kills a reference that the provider has never seen."""
    negative_is_final_for_reference: Flag = False
    not_found_horizon_s: Seconds
    """H: after this long since the last permit, the provider's "not found" counts."""
    request_expiry: Flag = False
    """The request carries an expiry after which the provider refuses to execute it."""
    returns_in_all: Flag = False
    """What is told as returned of a payment is all that came back of it until then, and may grow."""
    callbacks: Flag = False
    refunds: Literal["none", "full", "parts"] = "none"
    """Of operations that collect: what of a collected payment the provider pays back, by the rail's REFUND."""
    collection_lives_s: Seconds | None = None
    """Of operations that collect: how long the payer may take; the time that `expires_at` of a permit allows."""
    collection_reusable: Flag = False
    """Of operations that collect: what the payer is shown may be paid again and again, each payment for itself."""
    min_amount_minor: AmountMinor = 1
    max_amount_minor: AmountMinor
    currencies: Annotated[list[CurrencyCode], Field(min_length=1)]
    reference_length: Annotated[int, Field(ge=16, le=40)] = 24
    business_timezone: str = "UTC"
    cut_off: time | None = None


class PayeeType(Contract):
    """How a payee of one type is written. The core refuses what does not match, before anything is held."""

    pattern: str
    """A regular expression that the whole value matches."""
    example: str
    remedy: str
    operations: tuple[OperationType, ...] = ()
    """The operations that such a payee is for; none: all that have a payee."""


class Timing(Contract):
    """The adapter's timing; refused at start where S + T_psp < I < H does not hold."""

    send_by_s: Seconds
    """S"""
    call_total_s: Seconds
    """T_psp"""
    claim_idle_s: Seconds
    """I"""


class RailRegistration(Contract):
    """The body of `PUT /internal/v1/rails/{rail}`."""

    rail: RailName
    provider: str
    provider_account: str
    environment: str = "sandbox"
    operations: dict[OperationType, Capabilities]
    payee_types: dict[str, PayeeType]
    timing: Timing
    schema_versions: Annotated[tuple[int, ...], Field(min_length=1)] = (ENVELOPE_VERSION,)
    """Envelope versions that this adapter reads."""

    @property
    def reusable(self) -> frozenset[str]:
        """The operations whose codes may be paid again and again."""
        return frozenset(name for name, each in self.operations.items() if each.collection_reusable)


class RailRegistered(Contract):
    """What a rail has declared is version `version` of it."""

    rail: RailName
    version: int


class RailWaits(Contract):
    """The body of `POST /internal/v1/rails/{rail}/waits`: what a breaker holds back, said again while it does."""

    operations: Annotated[list[OperationType], Field(min_length=1, max_length=20)]
    holds_s: Annotated[int | float, Field(gt=0, le=300)]
    """How long it counts, unless it is said again."""


RAIL_CUT_OFF_TYPE = "rail_cut_off"


class RailCutOff(Contract):
    """On the results stream: this adapter runs and does not reach the core. Said again every second while it is so."""

    consumer: Annotated[str, Field(min_length=1, max_length=200)]


class EvidenceItem(Contract):
    """A raw answer behind a fact. The adapter mints the id, so that a repeat is one row."""

    id: UUID
    job_id: UUID | None = None
    kind: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
    payee_name: Annotated[str, Field(max_length=140)] | None = None
    raw: Annotated[str, Field(max_length=64_000)] = ""


class EvidenceBatch(Contract):
    """The body of `POST /internal/v1/evidence`; encrypted at rest, never through Redis."""

    items: Annotated[list[EvidenceItem], Field(min_length=1, max_length=1000)]


class EvidenceKept(Contract):
    """How many items are kept now, those that were kept before among them."""

    kept: int
    not_found: tuple[UUID, ...] = ()
    """Items that are not kept: the key is for some tenants, and their job is none of theirs."""
