"""The limit book: a tenant's limits in memory, at most a second old, and what a whole batch may take of them."""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from core.domain.intents import IntentRow
from core.domain.limits import (
    Exceeded,
    Held,
    Limit,
    Payer,
    Terms,
    Usage,
    UsageKey,
    claims_of,
    counts,
    fit,
    given_back,
    release,
    subjects_of,
    taken_again,
    terms_of,
)
from core.domain.operations import settles_at_once
from core.domain.registry import OPERATIONS
from schemas.events import TERMINAL_STATES, IntentState
from schemas.limits import LimitExceeded, LimitKind, LimitRequest, LimitSubject
from schemas.money import money_text
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
    timezone: str | None
    """Where its days and months begin; None of a quota, and of what was set before limits kept it: the tenant's."""
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

    def plus(self, other: "UsageMove") -> "UsageMove":
        """Return this and another move of the same counter together."""
        return UsageMove(
            self.held_minor + other.held_minor,
            self.used_minor + other.used_minor,
            self.held_count + other.held_count,
            self.used_count + other.used_count,
        )


class Take(NamedTuple):
    """What a batch asks of the counters of one limit in one period, by subject."""

    tenant_id: UUID
    limit: Limit
    period: date
    sums: dict[str, UsageMove]


class LimitReader(Protocol):
    """Where limits and counters are kept."""

    async def book_state(self, uow: Any, tenant_id: UUID) -> BookState: ...

    async def latest_limits(self, uow: Any, tenant_id: UUID) -> Sequence[StoredLimit]:
        """Return the newest version of every limit."""
        ...

    async def payers_of(self, uow: Any, wallet_ids: Sequence[UUID]) -> dict[UUID, Payer]: ...

    async def take_usage(self, uow: Any, takes: Sequence[Take]) -> bool:
        """Add to all counters, made where they are missing, if all of it fits; else change nothing: False.

        They are locked in the one order.
        """
        ...

    async def lock_usage(self, uow: Any, keys: Sequence[tuple[UUID, UsageKey]]) -> dict[UsageKey, Usage]:
        """Return the counters, locked in the one order and made where they are missing, each with its tenant."""
        ...

    async def move_usage(self, uow: Any, moves: Mapping[UsageKey, UsageMove], *, locked: bool) -> bool:
        """Add to the counters, locked in the one order unless they are `locked`; False where one is missing."""
        ...


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


@dataclass(slots=True)
class Alike:
    """Payments of a batch that ask the same counters for room: those of one wallet and operation."""

    tenant_id: UUID
    terms: Terms
    subjects: tuple[str, ...]
    """Under which each of the limits that count counts them."""
    sum: UsageMove = field(default_factory=UsageMove)
    """What they all take together of each counter."""

    def add(self, intent: IntentRow) -> None:
        """Count a payment that fits its limits per transaction."""
        total = self.sum
        if settles_at_once(intent):
            total.used_minor += intent.amount_minor
            total.used_count += 1
        else:
            total.held_minor += intent.amount_minor
            total.held_count += 1

    def note(self, amount_minor: int) -> dict[str, Any] | None:
        """Return what is kept with a payment that took its part of each counter."""
        if not self.subjects:
            return None
        counted = zip(self.terms.counted, self.subjects, strict=True)
        return {"held": [[limit, subject, period, amount_minor, 1] for (_, _, limit, period), subject in counted]}

    def held(self, amount_minor: int) -> tuple[Held, ...]:
        """Return the same as what it has there."""
        keys = [one.key for one in self.terms.claims(self.subjects) if one.key is not None]
        return tuple([Held(key, amount_minor, 1) for key in keys])


class Desk:
    """The counters of one batch, locked: decides in the order that it is asked, then writes.

    Where all the batch fits, it was taken before anything was asked, and what fails for another reason is given back.
    """

    def __init__(self, reader: LimitReader, asked: Mapping[int, Alike], refunds: Mapping[UUID, Sequence[Held]],
                 usage: dict[UsageKey, Usage] | None) -> None:  # fmt: skip
        """`asked` is by the number of an intent's id: it is met once, and its hash is no call of Python's.

        `usage` is what the counters say; None where the batch was taken at once.
        """
        self._reader, self._asked, self._refunds, self._usage = reader, asked, refunds, usage
        self._taken: dict[UUID, tuple[Held, ...]] = {}
        self._given_back: list[tuple[IntentRow, tuple[Held, ...]]] = []

    def admit(self, intent: IntentRow) -> str | None:
        """Take what the intent needs and return None, or take nothing and say which limit it does not fit.

        Either is noted in the intent's `limits`.
        """
        alike = self._asked[intent.id.int]
        if self._usage is None and not self._refunds and intent.amount_minor <= alike.terms.largest_minor:
            intent.limits = alike.note(intent.amount_minor)
            return None
        answer = self._fit(intent.amount_minor, alike)
        if isinstance(answer, Exceeded):
            intent.limits = {"exceeded": told(answer).model_dump(mode="json")}
            return _text(answer)
        held = self._taken[intent.id] = (*answer, *self._refunds.get(intent.id, ()))
        intent.limits = {"held": [each.record() for each in held]} if held else None
        return None

    def _fit(self, amount_minor: int, alike: Alike) -> tuple[Held, ...] | Exceeded:
        if self._usage is not None:
            return fit(amount_minor, alike.terms.claims(alike.subjects), self._usage)
        if amount_minor > alike.terms.largest_minor:
            return fit(amount_minor, alike.terms.alone, {})
        return alike.held(amount_minor)

    def release(self, intent: IntentRow) -> None:
        """Put back what an intent took that failed for another reason."""
        taken = self._taken.pop(intent.id, None)
        if taken is None:
            taken = self._asked[intent.id.int].held(intent.amount_minor)
        held = tuple(each for each in taken if each.amount_minor > 0)
        if self._usage is None:
            self._given_back.append((intent, held))
        else:
            release(held, self._usage)
        intent.limits = None

    async def write(self, uow: Any, states: Iterable[tuple[IntentRow, IntentState]]) -> None:
        """Write what was taken: as used by intents that settled at once, as held by those that go on."""
        moves: defaultdict[UsageKey, UsageMove] = defaultdict(UsageMove)
        for intent, state in states if self._taken else ():
            for each in self._taken.get(intent.id, ()):
                # What refunds give back is never taken at once.
                if self._usage is not None or each.amount_minor < 0:
                    _take(moves[each.key], each, used=state is IntentState.SETTLED)
        if self._given_back:
            # What was to be taken at last is taken now: nothing can be given back to a counter that is not made yet.
            await uow.finish()
        for intent, held in self._given_back:
            for each in held:
                _take(moves[each.key], Held(each.key, -each.amount_minor, -each.count), used=settles_at_once(intent))
        # What refunds give back was locked, but not looked at.
        locked = self._usage is not None and self._usage.keys() >= moves.keys()
        await _write(uow, self._reader, moves, locked=locked)


class LimitBook:
    """Decides by limits that are at most `fresh_s` seconds old."""

    def __init__(self, reader: LimitReader, fresh_s: float = 1) -> None:
        self._reader, self._fresh_s = reader, fresh_s
        self._kept: dict[UUID, Book] = {}

    async def open(
        self,
        uow: Any,
        intents: Sequence[IntentRow],
        at: datetime,
        originals: Mapping[UUID, IntentRow] | None = None,
    ) -> Desk | None:
        """Lock the counters of a batch and return what decides about it; None where no limit counts any of it.

        `originals` has the payments that refunds are about. Costs one statement where all fits and two where not, one
        more where owners or tiers matter, and without limits none but a small one a second.
        """
        tenants = {intent.tenant_id.int: intent.tenant_id for intent in intents}
        books = {number: await self.book_of(uow, tenant_id) for number, tenant_id in tenants.items()}
        matching = [books[i.tenant_id.int].matching(i.operation, i.currency) for i in intents]
        refunds = _refunds(books, intents, originals) if originals else {}
        if not refunds and not any(matching):
            return None
        payers = await self._payers(uow, intents, matching)
        asked: dict[int, Alike] = {}
        alike: dict[tuple[int, int], Alike] = {}
        terms: dict[tuple[int, str], Terms] = {}
        for intent, limits in zip(intents, matching, strict=True):
            # Payments of one wallet ask the same limits for room; the limits are those of its tenant.
            same = intent.wallet_id.int, id(limits)
            found = alike.get(same)
            if found is None:
                payer = payers.get(intent.wallet_id) or Payer(intent.wallet_id)
                agreed = terms.get((id(limits), payer.tier))
                if agreed is None:
                    agreed = terms[id(limits), payer.tier] = terms_of(limits, payer.tier, at)
                subjects = subjects_of(agreed, intent.tenant_id, payer)
                found = alike[same] = Alike(intent.tenant_id, agreed, subjects)
            asked[intent.id.int] = found
            if intent.amount_minor <= found.terms.largest_minor:
                found.add(intent)
        takes = _takes(alike.values())
        back = {each.key: i.tenant_id for i in intents if settles_at_once(i) for each in refunds.get(i.id, ())}
        if back:
            # Given back when the ledger was asked, whose accounts come after every counter: locked before, with those
            # that are taken, in the one order.
            await self._lock(uow, back | _keys(takes))
        return Desk(self._reader, asked, refunds, await self._take_all(uow, takes))

    async def _take_all(self, uow: Any, takes: Sequence[Take]) -> dict[UsageKey, Usage] | None:
        """Take what the batch asks for where all of it fits, or return the counters, locked, to decide one by one."""
        if not takes or await self._reader.take_usage(uow, takes):
            return None
        return await self._lock(uow, _keys(takes))

    async def _lock(self, uow: Any, tenants: Mapping[UsageKey, UUID]) -> dict[UsageKey, Usage]:
        """Return these counters, locked in the one order and made where they are missing; each beside its tenant."""
        return await self._reader.lock_usage(uow, [(tenant_id, key) for key, tenant_id in tenants.items()])

    async def note_refund(self, uow: Any, refund: IntentRow, original: IntentRow, amount_minor: int) -> None:
        """Note with a refund of the core's own what it gives back once `end` is told that it settled.

        `amount_minor` is what its provider gave or took back, also where the refund tells of a part of that. A refund
        that came back is no refund any more: what it gave back is used again, over a limit too.
        """
        limits = {limit.id: limit for limit in (await self.book_of(uow, refund.tenant_id)).limits}
        held = held_by(original)
        back = given_back(held, limits, amount_minor, _whole_minor(original))
        if original.is_refund:
            back += taken_again(held, amount_minor, original.amount_minor)
        refund.limits = {"held": [each.record() for each in back]} if back else None

    async def note_further(self, uow: Any, deposit: IntentRow, amount_minor: int, at: datetime) -> None:
        """Note with a deposit of the core's own what `end` counts of it: money that is there is refused by no limit.

        One statement where owners or tiers matter, else none.
        """
        limits = (await self.book_of(uow, deposit.tenant_id)).matching(deposit.operation, deposit.currency)
        payers = await self._payers(uow, [deposit], [limits])
        payer = payers.get(deposit.wallet_id) or Payer(deposit.wallet_id)
        keys = [one.key for one in claims_of(limits, deposit.tenant_id, payer, at) if one.key is not None]
        used = [Held(key, amount_minor, 1).record() for key in keys]
        deposit.limits = {"held": used} if used else None

    async def end(
        self, uow: Any, endings: Sequence[tuple[IntentRow, IntentState]], made: Sequence[IntentRow] = ()
    ) -> None:
        """Commit what intents held that settle, give back what the others held that end; one statement, or none.

        The caller moves each intent to this state in the same transaction, once. `made` are intents that were made
        settled: what is noted with them is used, over a limit too, by counters that may be missing yet, which costs
        one statement more. Raises LimitUsageError.
        """
        moves: defaultdict[UsageKey, UsageMove] = defaultdict(UsageMove)
        tenants: dict[UsageKey, UUID] = {}
        takes = False
        for intent, state in endings:
            for each in held_by(intent) if state in TERMINAL_STATES else ():
                settled = state is IntentState.SETTLED
                if each.amount_minor > 0:
                    moves[each.key].held_minor -= each.amount_minor
                    moves[each.key].held_count -= each.count
                if settled:
                    _take(moves[each.key], each, used=True)
                tenants[each.key] = intent.tenant_id
        for intent in made:
            for each in held_by(intent):
                _take(moves[each.key], each, used=True)
                tenants[each.key] = intent.tenant_id
                takes = takes or each.count > 0  # What a refund gives back is no payment.
        if takes:
            # All of them at once, in the one order: those that are missing are made.
            await self._lock(uow, {key: tenants[key] for key in moves})
        await _write(uow, self._reader, moves, locked=takes)

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
            book = Book(now, state, *in_force(stored, state.zone))
        self._kept[tenant_id] = book
        return book

    async def _payers(
        self, uow: Any, intents: Sequence[IntentRow], matching: Sequence[Sequence[Limit]]
    ) -> dict[UUID, Payer]:
        needing = {id(limits) for limits in matching if any(map(needs_payer, limits))}
        wanted = {i.wallet_id for i, limits in zip(intents, matching, strict=True) if id(limits) in needing}
        return await self._reader.payers_of(uow, sorted(wanted, key=lambda each: each.int)) if wanted else {}


def in_force(stored: Sequence[StoredLimit], zone: ZoneInfo) -> tuple[tuple[Limit, ...], tuple[StoredLimit, ...]]:
    """Return the limits of payments and the quotas among the newest versions, without what is disabled.

    `zone` is that of limits that keep none.
    """
    enabled = [limit for limit in stored if limit.enabled]
    payments = [limit for limit in enabled if limit.request.kind is not LimitKind.QUOTA]
    quotas = [limit for limit in enabled if limit.request.kind is LimitKind.QUOTA]
    zones = [zone if limit.timezone is None else ZoneInfo(limit.timezone) for limit in payments]
    limits = [Limit.of(each.id, each.version, each.request, at) for each, at in zip(payments, zones, strict=True)]
    return tuple(limits), tuple(quotas)


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
        money_text(exceeded.remaining_minor, exceeded.limit.currency) if exceeded.remaining_minor is not None else "",
        f"{exceeded.remaining_count} payments" if exceeded.remaining_count is not None else "",
    ]
    text = f"limit {exceeded.limit.name} has {' and '.join(each for each in remaining if each)} left"
    return text if exceeded.renews_at is None else f"{text} until {exceeded.renews_at.isoformat()}"


def _takes(groups: Collection[Alike]) -> list[Take]:
    """Return what a batch asks of its counters, by limit."""
    takes: dict[int, Take] = {}
    for group in groups:
        for (limit, period, _, _), subject in zip(group.terms.counted, group.subjects, strict=True):
            # All is asked at one moment: a limit has one period.
            take = takes.get(id(limit))
            if take is None:
                take = takes[id(limit)] = Take(group.tenant_id, limit, period, {})
            so_far = take.sums.get(subject)
            take.sums[subject] = group.sum if so_far is None else so_far.plus(group.sum)
    return list(takes.values())


def _keys(takes: Sequence[Take]) -> dict[UsageKey, UUID]:
    """Return the counters, each with its tenant."""
    return {UsageKey(take.limit.id, subject, take.period): take.tenant_id for take in takes for subject in take.sums}


def _refunds(
    books: Mapping[int, Book], intents: Sequence[IntentRow], originals: Mapping[UUID, IntentRow]
) -> dict[UUID, tuple[Held, ...]]:
    found: dict[UUID, tuple[Held, ...]] = {}
    for intent in intents:
        original = originals.get(intent.id)
        if original is None or not OPERATIONS[OperationType(intent.operation)].refunds:
            continue
        limits = {limit.id: limit for limit in books[intent.tenant_id.int].limits}
        back = given_back(held_by(original), limits, intent.amount_minor, _whole_minor(original))
        if back:
            found[intent.id] = back
    return found


def _whole_minor(original: IntentRow) -> int:
    """Return all that there was to refund at first, with the fees on top that the payer of a collection paid."""
    return original.principal_minor if original.is_collected else original.amount_minor


def _take(move: UsageMove, held: Held, *, used: bool) -> None:
    # What a refund gives back is given once it settles: until then nothing is promised.
    if used:
        move.used_minor += held.amount_minor
        move.used_count += held.count
    elif held.amount_minor > 0 or held.count:
        move.held_minor += held.amount_minor
        move.held_count += held.count


async def _write(uow: Any, reader: LimitReader, moves: Mapping[UsageKey, UsageMove], *, locked: bool) -> None:
    needed = {key: move for key, move in moves.items() if move != UsageMove()}
    if needed and not await reader.move_usage(uow, needed, locked=locked):
        raise LimitUsageError("a counter is missing that an intent has something at")
