"""The limit book: a tenant's limits in memory, at most a second old, and what a whole batch may take of them."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from core.domain.intents import IntentRow
from core.domain.limits import (
    Claim,
    Exceeded,
    Held,
    Limit,
    Payer,
    Usage,
    UsageKey,
    claim,
    counts,
    fit,
    given_back,
    release,
)
from core.domain.registry import OPERATIONS
from schemas.events import TERMINAL_STATES, IntentState
from schemas.limits import LimitExceeded, LimitKind, LimitRequest, LimitSubject
from schemas.operations import OperationType


class LimitUsageError(RuntimeError):
    """A counter is gone that an intent has something at; the transaction must not commit."""


@dataclass(frozen=True, slots=True)
class StoredLimit:
    """One version of a limit as it is stored."""

    id: UUID
    version: int
    name: str
    enabled: bool
    request: LimitRequest
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class BookState:
    """What a reader compares: nothing is loaded while the revision stays."""

    revision: int
    zone: ZoneInfo


@dataclass(slots=True)
class UsageMove:
    """What is added to one counter."""

    held_minor: int = 0
    used_minor: int = 0
    held_count: int = 0
    used_count: int = 0


class LimitReader(Protocol):
    """Where limits and counters are kept."""

    async def book_state(self, uow: Any, tenant_id: UUID) -> BookState: ...

    async def latest_limits(self, uow: Any, tenant_id: UUID) -> Sequence[StoredLimit]:
        """Return the newest version of every limit."""
        ...

    async def payers_of(self, uow: Any, wallet_ids: Sequence[UUID]) -> dict[UUID, Payer]: ...

    async def lock_usage(self, uow: Any, keys: Sequence[tuple[UUID, UsageKey]]) -> dict[UsageKey, Usage]:
        """Return the counters, locked in the one order and made where they are missing, each with its tenant."""
        ...

    async def move_usage(self, uow: Any, moves: Mapping[UsageKey, UsageMove], *, locked: bool) -> bool:
        """Add to the counters, locked in the one order unless they are `locked`; False where one is missing."""
        ...


class Zoned(Protocol):
    """The terms of a rail, as far as limits look at them."""

    @property
    def timezone(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Book:
    """The limits of one tenant that are in force."""

    looked_at_s: float
    state: BookState
    limits: tuple[Limit, ...] = ()
    quotas: tuple[StoredLimit, ...] = ()
    _matching: dict[tuple[str, str], tuple[Limit, ...]] = field(default_factory=dict)

    def matching(self, operation: str, currency: str) -> tuple[Limit, ...]:
        """Return the limits that count such payments, whoever pays."""
        found = self._matching.get((operation, currency))
        if found is None:
            found = tuple(limit for limit in self.limits if counts(limit, operation, currency))
            self._matching[operation, currency] = found
        return found

    def zone_for(self, limit: Limit, rail: Zoned | None) -> ZoneInfo:
        """Return where days begin for a limit: the rail's zone where it names an operation, else the tenant's."""
        if limit.operation is not None and rail is not None:
            return ZoneInfo(rail.timezone)
        return self.state.zone


class Desk:
    """The counters of one batch, locked: decides in the order that it is asked, then writes once."""

    def __init__(self, reader: LimitReader, claims: Mapping[UUID, Sequence[Claim]], usage: dict[UsageKey, Usage],
                 refunds: Mapping[UUID, Sequence[Held]]) -> None:  # fmt: skip
        self._reader, self._claims, self._usage, self._refunds = reader, claims, usage, refunds
        self._taken: dict[UUID, tuple[Held, ...]] = {}

    def admit(self, intent: IntentRow) -> str | None:
        """Take what the intent needs and return None, or take nothing and say which limit it does not fit.

        Either is noted in the intent's `limits`.
        """
        answer = fit(intent.amount_minor, self._claims.get(intent.id, ()), self._usage)
        if isinstance(answer, Exceeded):
            intent.limits = {"exceeded": told(answer).model_dump(mode="json")}
            return _text(answer)
        held = self._taken[intent.id] = (*answer, *self._refunds.get(intent.id, ()))
        intent.limits = {"held": [each.record() for each in held]} if held else None
        return None

    def release(self, intent: IntentRow) -> None:
        """Put back what an intent took that failed for another reason."""
        release([each for each in self._taken.pop(intent.id, ()) if each.amount_minor > 0], self._usage)
        intent.limits = None

    async def write(self, uow: Any, states: Iterable[tuple[IntentRow, IntentState]]) -> None:
        """Write what was taken: as used by intents that settled at once, as held by those that go on."""
        moves: defaultdict[UsageKey, UsageMove] = defaultdict(UsageMove)
        for intent, state in states:
            for each in self._taken.get(intent.id, ()):
                _take(moves[each.key], each, used=state is IntentState.SETTLED)
        # What refunds give back was not looked at, so it was not locked.
        await _write(uow, self._reader, moves, locked=self._usage.keys() >= moves.keys())


class LimitBook:
    """Decides by limits that are at most `fresh_s` seconds old."""

    def __init__(self, reader: LimitReader, fresh_s: int = 1) -> None:
        self._reader, self._fresh_s = reader, fresh_s
        self._kept: dict[UUID, Book] = {}

    async def open(
        self,
        uow: Any,
        intents: Sequence[IntentRow],
        rails: Mapping[UUID, Zoned],
        at: datetime,
        originals: Mapping[UUID, IntentRow] | None = None,
    ) -> Desk | None:
        """Lock the counters of a batch and return what decides about it; None where no limit counts any of it.

        `rails` has the terms of the intents that need a rail, `originals` the payments that refunds are about. Costs
        one statement, one more where owners or tiers matter, and without limits none but a small one a second.
        """
        books = {tenant_id: await self.book_of(uow, tenant_id) for tenant_id in {i.tenant_id for i in intents}}
        matching = {i.id: books[i.tenant_id].matching(i.operation, i.currency) for i in intents}
        refunds = _refunds(books, intents, originals or {})
        if not refunds and not any(matching.values()):
            return None
        payers = await self._payers(uow, intents, matching)
        claims: dict[UUID, list[Claim]] = {}
        keys: dict[UsageKey, UUID] = {}
        alike: dict[tuple[UUID, int, str], list[Claim]] = {}
        for intent in intents:
            limits, rail = matching[intent.id], rails.get(intent.id)
            # Payments of one wallet ask the same limits for room; the limits are those of its tenant.
            same = intent.wallet_id, id(limits), "" if rail is None else rail.timezone
            found = alike.get(same)
            if found is None:
                book, payer = books[intent.tenant_id], payers.get(intent.wallet_id) or Payer(intent.wallet_id)
                asked = [claim(each, intent.tenant_id, payer, at, book.zone_for(each, rail)) for each in limits]
                found = alike[same] = [one for one in asked if one is not None]
                keys |= {one.key: intent.tenant_id for one in found if one.key is not None}
            claims[intent.id] = found
        usage = await self._reader.lock_usage(uow, [(tenant, key) for key, tenant in keys.items()]) if keys else {}
        return Desk(self._reader, claims, usage, refunds)

    async def note_refund(self, uow: Any, refund: IntentRow, original: IntentRow) -> None:
        """Note with a refund of the core's own what it gives back once `end` is told that it settled."""
        books = {refund.tenant_id: await self.book_of(uow, refund.tenant_id)}
        back = _refunds(books, [refund], {refund.id: original}).get(refund.id, ())
        refund.limits = {"held": [each.record() for each in back]} if back else None

    async def end(self, uow: Any, endings: Sequence[tuple[IntentRow, IntentState]]) -> None:
        """Commit what intents held that settle, give back what the others held that end; one statement, or none.

        The caller moves each intent to this state in the same transaction, once. Raises LimitUsageError.
        """
        moves: defaultdict[UsageKey, UsageMove] = defaultdict(UsageMove)
        for intent, state in endings:
            for each in held_by(intent) if state in TERMINAL_STATES else ():
                settled = state is IntentState.SETTLED
                if each.amount_minor > 0:
                    moves[each.key].held_minor -= each.amount_minor
                    moves[each.key].held_count -= each.count
                if settled:
                    _take(moves[each.key], each, used=True)
        await _write(uow, self._reader, moves, locked=False)

    def forget(self, tenant_id: UUID) -> None:
        """Look the tenant's limits up anew, the next time."""
        self._kept.pop(tenant_id, None)

    async def book_of(self, uow: Any, tenant_id: UUID) -> Book:
        """Return the tenant's limits, at most a second old."""
        kept = self._kept.get(tenant_id)
        now = time.monotonic()
        if kept is not None and now - kept.looked_at_s < self._fresh_s:
            return kept
        state = await self._reader.book_state(uow, tenant_id)
        if kept is not None and kept.state == state:
            book = Book(now, state, kept.limits, kept.quotas)
        else:
            stored = await self._reader.latest_limits(uow, tenant_id) if state.revision else ()
            book = Book(now, state, *in_force(stored))
        self._kept[tenant_id] = book
        return book

    async def _payers(
        self, uow: Any, intents: Sequence[IntentRow], matching: Mapping[UUID, Sequence[Limit]]
    ) -> dict[UUID, Payer]:
        wanted = {i.wallet_id for i in intents if any(needs_payer(limit) for limit in matching[i.id])}
        return await self._reader.payers_of(uow, sorted(wanted, key=lambda each: each.int)) if wanted else {}


def in_force(stored: Sequence[StoredLimit]) -> tuple[tuple[Limit, ...], tuple[StoredLimit, ...]]:
    """Return the limits of payments and the quotas among the newest versions, without what is disabled."""
    enabled = [limit for limit in stored if limit.enabled]
    payments = [limit for limit in enabled if limit.request.kind is not LimitKind.QUOTA]
    quotas = [limit for limit in enabled if limit.request.kind is LimitKind.QUOTA]
    return tuple(Limit.of(limit.id, limit.version, limit.request) for limit in payments), tuple(quotas)


def needs_payer(limit: Limit) -> bool:
    """Whether the wallet's owner or tier decides about the limit."""
    return limit.tier is not None or limit.subject is LimitSubject.OWNER


def held_by(intent: IntentRow) -> list[Held]:
    """Return what was noted with the intent when it was authorized."""
    return [Held.of_record(record) for record in (intent.limits or {}).get("held", ())]


def told(exceeded: Exceeded) -> LimitExceeded:
    """Return the refusal as it is told."""
    limit = exceeded.limit
    return LimitExceeded(
        limit_id=limit.id,
        limit=limit.name,
        remaining_minor=exceeded.remaining_minor,
        remaining_count=exceeded.remaining_count,
        renews_at=exceeded.renews_at,
    )


def _text(exceeded: Exceeded) -> str:
    remaining = [
        f"{exceeded.remaining_minor} minor units" if exceeded.remaining_minor is not None else "",
        f"{exceeded.remaining_count} payments" if exceeded.remaining_count is not None else "",
    ]
    text = f"limit {exceeded.limit.name} has {' and '.join(each for each in remaining if each)} left"
    return text if exceeded.renews_at is None else f"{text} until {exceeded.renews_at.isoformat()}"


def _refunds(
    books: Mapping[UUID, Book], intents: Sequence[IntentRow], originals: Mapping[UUID, IntentRow]
) -> dict[UUID, tuple[Held, ...]]:
    found: dict[UUID, tuple[Held, ...]] = {}
    for intent in intents:
        original = originals.get(intent.id)
        if original is None or not OPERATIONS[OperationType(intent.operation)].refunds:
            continue
        limits = {limit.id: limit for limit in books[intent.tenant_id].limits}
        back = given_back(held_by(original), limits, intent.amount_minor, original.amount_minor)
        if back:
            found[intent.id] = back
    return found


def _take(move: UsageMove, held: Held, *, used: bool) -> None:
    # What a refund gives back is given once it settles: until then nothing is promised.
    if used:
        move.used_minor += held.amount_minor
        move.used_count += held.count
    elif held.amount_minor > 0:
        move.held_minor += held.amount_minor
        move.held_count += held.count


async def _write(uow: Any, reader: LimitReader, moves: Mapping[UsageKey, UsageMove], *, locked: bool) -> None:
    needed = {key: move for key, move in moves.items() if move != UsageMove()}
    if needed and not await reader.move_usage(uow, needed, locked=locked):
        raise LimitUsageError("a counter is missing that an intent has something at")
