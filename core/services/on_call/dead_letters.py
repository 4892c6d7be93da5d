"""Dead letters: kept in PostgreSQL with what they prove, found by what is known of them, judged one by one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from urllib.parse import quote
from uuid import UUID

from core.domain.redrive import Judgement, Redrive, Standing, judge
from core.services.cursors import BIGINT_MAX, decode_cursor, encode_cursor, number_of
from schemas.dead_letters import DeadLetter
from schemas.on_call import LetterAttempt, LetterEvidence, LetterState


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant; None takes any. `tenant_id` None is every tenant's."""

    rail: str | None = None
    error_class: str | None = None
    fingerprint: str | None = None
    state: LetterState = LetterState.OPEN
    tenant_id: UUID | None = None
    operation: str | None = None
    provider: str | None = None
    job_id: UUID | None = None
    intent_id: UUID | None = None
    trace_id: str | None = None
    evidence_id: UUID | None = None
    permits: int | None = None
    """So many permits had been given when it died."""
    text: str | None = None
    """Words of the message, the class, the provider's reference or the masked payload."""
    received_after: datetime | None = None
    received_before: datetime | None = None
    ids: Sequence[UUID] | None = None


@dataclass(frozen=True, slots=True)
class LetterView:
    """One dead letter as people see it; the body stays sealed, `payload` has its masked fields."""

    id: UUID
    tenant_id: UUID
    stream: str
    entry_id: str
    rail: str
    operation: str | None
    kind: str | None
    provider: str | None
    reference: str
    job_id: UUID | None
    intent_id: UUID | None
    error_class: str
    fingerprint: str
    message: str
    deliveries: int
    permits: int
    fence: int
    intent_state: str | None
    state: str
    traceparent: str | None
    payload: Mapping[str, Any]
    received_at: datetime
    closed_at: datetime | None
    closed_because: str
    age_s: int
    standing: Standing

    @property
    def judgement(self) -> Judgement:
        """Whether a redrive is safe now, and why."""
        return judge(self.standing)

    @property
    def verdict(self) -> tuple[Redrive, str]:
        """What a redrive would be, and why."""
        return self.judgement.verdict, self.judgement.reason

    @property
    def trace_id(self) -> str | None:
        """The number of the trace in which its job began."""
        return trace_id_of(self.traceparent)


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the trace's number in a `traceparent`; None where there is none."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) > 1 else None


@dataclass(frozen=True, slots=True)
class Tried:
    """What was tried for a letter's job: each permit with what was reported under it, and the sealed evidence."""

    attempts: Sequence[LetterAttempt] = ()
    evidence: Sequence[LetterEvidence] = ()


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """The letters of one fingerprint: how many, since when, and whether it gets worse."""

    fingerprint: str
    error_class: str
    rail: str
    message: str
    letters: int
    last_hour: int
    hour_before: int
    first_at: datetime
    last_at: datetime

    @property
    def trend(self) -> str:
        """`rising`, `falling` or `steady`: the last hour against the one before."""
        if self.last_hour == self.hour_before:
            return "steady"
        return "rising" if self.last_hour > self.hour_before else "falling"


def cursor_behind(group: LetterGroup) -> str:
    """Return the cursor of what comes behind a group."""
    return encode_cursor(str(group.letters), group.fingerprint)


def group_before(cursor: str) -> tuple[int, str]:
    """Return size and fingerprint of the group that a cursor stands behind. Raises Refusal `cursor_malformed`."""
    size, fingerprint = decode_cursor(cursor, 2)
    return number_of(size, BIGINT_MAX), fingerprint


class Letters(Protocol):
    """What dead letters need of their store."""

    async def keep_dead(self, uow: Any, letters: Sequence[DeadLetter]) -> None: ...

    async def list_letters(
        self, uow: Any, wanted: LetterFilter, limit: int, after: UUID | None = None
    ) -> Sequence[LetterView]: ...

    async def group_letters(
        self, uow: Any, wanted: LetterFilter, limit: int, after: tuple[int, str] | None = None
    ) -> Sequence[LetterGroup]:
        """Return groups, the largest first, after one of so many letters with that fingerprint."""
        ...

    async def find_letter(self, uow: Any, letter_id: UUID, tenant_id: UUID | None = None) -> LetterView | None: ...

    async def tried(self, uow: Any, letter: LetterView) -> Tried:
        """Return what was tried for its job, in the order of time."""
        ...


async def receive(uow: Any, store: Letters, letters: Sequence[DeadLetter]) -> None:
    """Keep dead letters once each and mark their open jobs DEAD; what was sent is inquired about at once."""
    if letters:
        await store.keep_dead(uow, letters)


_SHOWN: Final = frozenset(
    {
        "operation",
        "kind",
        "provider",
        "amount_minor",
        "currency",
        "payee_masked",
        "deadline",
        "verdict",
        "fence",
        "basis",
        "reference",
        "provider_tx_id",
        "reason",
        "payee_name_masked",
        "evidence_id",
        "observed_at",
    }
)
_LONGEST: Final = 120


def shown_payload(body: str) -> dict[str, Any]:
    """Return what of a body may be shown: the contracts' masked fields, and nothing of what is no JSON object."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    return {
        name: value
        for name, value in told.items()
        if name in _SHOWN
        and (
            (isinstance(value, str) and len(value) <= _LONGEST and value.isprintable())
            or (isinstance(value, int) and abs(value) < 2**63)
        )
    }


def letter_document(letter: LetterView) -> dict[str, Any]:
    """Return a letter in the shape of `schemas.on_call.LetterDocument`."""
    verdict, reason = letter.verdict
    return {
        "id": letter.id,
        "state": letter.state,
        "verdict": verdict,
        "reason": reason,
        "rail": letter.rail,
        "operation": letter.operation,
        "kind": letter.kind,
        "provider": letter.provider,
        "class": letter.error_class,
        "fingerprint": letter.fingerprint,
        "message": letter.message,
        "received_at": letter.received_at,
        "age_s": letter.age_s,
        "deliveries": letter.deliveries,
        "fence": letter.fence,
        "tenant_id": letter.tenant_id,
        "job_id": letter.job_id,
        "intent_id": letter.intent_id,
        "intent_state": letter.intent_state,
        "reference": letter.reference,
        "permits": letter.permits,
        "stream": letter.stream,
        "entry_id": letter.entry_id,
        "traceparent": letter.traceparent,
        "payload": dict(letter.payload),
        "closed_at": letter.closed_at,
        "closed_because": letter.closed_because,
    }


def letter_detail(letter: LetterView, tried: Tried, trace_url: str = "") -> dict[str, Any]:
    """Return a letter in `schemas.on_call.LetterDetail`; `trace_url` has `{trace_id}` in it or is empty."""
    payment = letter.intent_id
    return letter_document(letter) | {
        "trace_id": letter.trace_id,
        "attempts": [attempt.model_dump() for attempt in tried.attempts],
        "evidence": [each.model_dump() for each in tried.evidence],
        "links": {
            "intent": payment and f"/v1/intents/{payment}",
            "history": payment and f"/v1/stories/{payment}",
            "same_kind": f"/v1/dead-letters?fingerprint={quote(letter.fingerprint, safe='')}",
            "journal": payment and f"/v1/audit?subject=intent:{payment}",
            "trace": trace_page(letter.trace_id, trace_url),
        },
    }


def trace_page(trace_id: str | None, trace_url: str) -> str | None:
    """Return where a trace is shown; None where nobody said where traces are, or there is none."""
    return trace_url.replace("{trace_id}", trace_id) if trace_id and trace_url else None
