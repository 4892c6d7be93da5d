"""The completer: after any crash, finish or park what stands. A bounded look at a time, through all of the recent past.

Every step of a payment is one transaction, so nothing here is needed after a plain kill; it is needed after what no
transaction guards: a restored backup, a row that a person changed, a fault of our own. Each step is decided again under
the locks that payments take, so it has no effect on what moves, and none the second time.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.intents import IntentRow, Move
from core.domain.operations import post_transfers, sending_job, void_transfers
from core.domain.stranded import Standing, Stranded, StrandedKind, stranded
from core.services.ledger_port import Ledger
from core.services.settling.close_job import ClosePorts, Ending, close_if_unsent, end_intents
from core.services.settling.facts import Alert
from core.services.settling.settle import UnitOfWorkFactory
from core.telemetry import catalogue
from schemas.events import IntentState

_log = logging.getLogger(__name__)
_OUTCOME: Final = "abandoned"
Seconds = int | float


@dataclass(frozen=True, slots=True)
class Range:
    """Ids behind `after`, up to `upto`."""

    after: UUID
    upto: UUID
    count: int
    is_last: bool

    @property
    def lowest(self) -> UUID:
        """The least id that anything of this range's time can have."""
        return UUID(int=self.after.int >> 80 << 80)


@dataclass(frozen=True, slots=True)
class HeldAfterEnd:
    """Money that is held for an intent that has ended, or (not `known`) does not exist."""

    intent_id: UUID | None
    tenant_id: UUID
    hold_id: UUID
    known: bool


@dataclass(frozen=True, slots=True)
class LimitCounter:
    """What one limit counts for one subject in one period, which begins on that day."""

    limit_id: UUID
    subject: str
    period: date
    tenant_id: UUID


@dataclass(frozen=True, slots=True)
class CounterPage:
    """What differs among one page of counters, and the last one; `after` is None where there are no more."""

    differing: tuple[LimitCounter, ...]
    after: LimitCounter | None


@dataclass(slots=True)
class Walk:
    """One walk through everything that may stand."""

    begun_at: datetime
    begun_s: float
    scanned: int = 0
    oldest_open: UUID | None = None
    """The oldest intent that has not ended: the next start begins there, however long ago that is."""
    counted_to: LimitCounter | None = None
    is_at_limits: bool = False


class Looks(Protocol):
    """Looks for what stands, and the repairs that are one statement."""

    async def next_range(self, uow: Any, after: UUID | None, lookback_days: int, limit: int) -> Range: ...
    async def standing(self, uow: Any, ids: Range, grace_s: float) -> tuple[list[Standing], UUID | None]: ...
    async def standing_of(self, uow: Any, intent_id: UUID) -> Standing | None: ...
    async def held_after_end(self, uow: Any, ids: Range, grace_s: float) -> list[HeldAfterEnd]: ...
    async def overheld(self, uow: Any, after: LimitCounter | None, limit: int) -> CounterPage: ...
    async def put_right(self, uow: Any, counter: LimitCounter) -> bool: ...
    async def begin_walk(self, uow: Any) -> datetime: ...
    async def keep_walk(self, uow: Any, walk: Walk) -> datetime: ...
    async def end_review(self, uow: Any, intent_id: UUID) -> None: ...
    async def requeue_ready(self, uow: Any, job_ids: Sequence[UUID]) -> None: ...
    async def check_now(self, uow: Any, job_ids: Sequence[UUID]) -> None: ...
    async def mark_parked(self, uow: Any, intent_id: UUID) -> None: ...


class CompletePorts(ClosePorts, Protocol):
    """What completing works with."""

    @property
    def ledger(self) -> Ledger: ...


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found, and where the next one goes on; None: it has come to now, and begins anew."""

    found: tuple[Stranded, ...]
    scanned: int
    after: UUID | None
    oldest_open: UUID | None = None


async def look(
    looks: Looks, unit_of_work: UnitOfWorkFactory, after: UUID | None, *, lookback_days: int, limit: int, grace_s: float
) -> Look:
    """Look through one page of intents and the holds of their time. Reads alone."""
    async with unit_of_work() as uow:
        ids = await looks.next_range(uow, after, lookback_days, limit)
        standing, oldest_open = await looks.standing(uow, ids, grace_s)
        found = [each for one in standing if (each := stranded(one)) is not None]
        for held in await looks.held_after_end(uow, ids, grace_s):
            kind = StrandedKind.UNRELEASED if held.known else StrandedKind.UNOWNED
            found.append(Stranded(kind, held.intent_id or held.hold_id, held.tenant_id, (held.hold_id,)))
    return Look(tuple(found), ids.count, None if ids.is_last else ids.upto, oldest_open)


class Completer:
    """Walks through what may stand page by page, for ever: the first walk at once, the later ones at leisure.

    A walk goes through the intents from the oldest that the last one left open, then through the counters of limits.
    """

    def __init__(
        self,
        ports: CompletePorts,
        looks: Looks,
        unit_of_work: UnitOfWorkFactory,
        *,
        every_s: float,
        lookback_days: int,
        limit: int,
        grace_s: float,
    ) -> None:
        self._ports, self._looks, self._unit_of_work = ports, looks, unit_of_work
        self._every_s, self._lookback_days, self._limit, self._grace_s = every_s, lookback_days, limit, grace_s
        self._after: UUID | None = None
        self._walked = False
        self._walk: Walk | None = None
        for kind in StrandedKind:
            # Of a counter that begins at 1, nobody sees that it rose.
            catalogue.STRANDED.labels(kind, "found")
            catalogue.STRANDED.labels(kind, "failed")

    async def step(self) -> Seconds:
        """Look at one page and finish or park what stands; return how long to wait."""
        if self._walk is None:
            async with self._unit_of_work() as uow:
                self._walk = Walk(await self._looks.begin_walk(uow), time.monotonic())
        if self._walk.is_at_limits:
            await self._look_at_limits(self._walk)
        else:
            await self._look_at_intents(self._walk)
        return self._every_s if self._walked else 0

    async def _look_at_intents(self, walk: Walk) -> None:
        seen = await look(
            self._looks,
            self._unit_of_work,
            self._after,
            lookback_days=self._lookback_days,
            limit=self._limit,
            grace_s=self._grace_s,
        )
        for each in seen.found:
            catalogue.STRANDED.labels(each.kind, "found").inc()
            try:
                outcome = await self.complete(each)
            except Exception as error:  # noqa: BLE001 - one that cannot be finished holds up no other
                told = {"intent_id": each.intent_id}
                _log.error("a payment (%s) cannot be completed: %s", each.kind, type(error).__name__, extra=told)
                outcome = "failed"
            catalogue.STRANDED.labels(each.kind, outcome).inc()
        self._after = seen.after
        walk.scanned += seen.scanned
        walk.oldest_open = walk.oldest_open or seen.oldest_open
        walk.is_at_limits = seen.after is None
        catalogue.RECOVERY_SCANNED.inc(seen.scanned)

    async def _look_at_limits(self, walk: Walk) -> None:
        async with self._unit_of_work() as uow:
            page = await self._looks.overheld(uow, walk.counted_to, self._limit)
        for counter in page.differing:
            each = Stranded(StrandedKind.OVERHELD, counter.limit_id, counter.tenant_id)
            catalogue.STRANDED.labels(each.kind, "found").inc()
            async with self._unit_of_work() as uow:
                righted = await self._looks.put_right(uow, counter)
                if righted:
                    text = f"{counter.limit_id} {counter.subject} {counter.period}: it held what no open payment has"
                    await self._alert(uow, each, "ticket", text)
            catalogue.STRANDED.labels(each.kind, "finished" if righted else "moved").inc()
        walk.counted_to = page.after
        if page.after is not None:
            return
        async with self._unit_of_work() as uow:
            ended_at = await self._looks.keep_walk(uow, walk)
        catalogue.RECOVERY_WALKS.inc()
        catalogue.RECOVERY_LAST_WALK.set(ended_at.timestamp())
        catalogue.RECOVERY_LAST_WALK_INTENTS.set(walk.scanned)
        catalogue.RECOVERY_LAST_WALK_SECONDS.set(time.monotonic() - walk.begun_s)
        self._walk, self._walked = None, True

    async def complete(self, each: Stranded) -> str:
        """Finish or park one thing in a transaction of its own; return `finished`, `parked` or `moved` on."""
        async with self._unit_of_work() as uow:
            if each.kind is StrandedKind.UNOWNED:
                await self._alert(uow, each, "page", f"hold {each.job_ids[0]} belongs to no intent")
                return "parked"
            if each.kind is StrandedKind.UNRELEASED:
                return await self._release(uow, each)
            # Jobs before intents, as everywhere.
            await self._ports.jobs.lock_jobs(uow, sorted(each.job_ids))
            intents = await self._ports.intents.load_intents(uow, [each.intent_id], lock=True)
            standing = await self._looks.standing_of(uow, each.intent_id)
            now = None if standing is None else stranded(standing)
            if now is None or now.kind is not each.kind:
                return "moved"
            return await self._step(uow, now, intents[each.intent_id])

    async def _step(self, uow: Any, each: Stranded, intent: IntentRow) -> str:
        match each.kind:
            case StrandedKind.UNQUEUED:
                await self._looks.requeue_ready(uow, each.job_ids)
            case StrandedKind.UNCHECKED:
                await self._looks.check_now(uow, each.job_ids)
            case StrandedKind.UNCANCELLED:
                ended = await close_if_unsent(
                    uow, self._ports, each.job_ids, to=IntentState.CANCELLED, type="mandate_cancelled"
                )
                return "finished" if ended else "moved"
            case StrandedKind.UNCLOSED:
                await self._ports.jobs.close_jobs_of(uow, [(intent.id, f"intent_{intent.state.lower()}")])
            case StrandedKind.UNASKED:
                await end_intents(uow, self._ports, [_abandoned(intent, IntentState.EXPIRED, None)])
            case StrandedKind.UNREVIEWED:
                await self._looks.end_review(uow, intent.id)
            case StrandedKind.UNSENT if await self._is_provably_unsent(uow, intent):
                # Nothing is held for money that has yet to come in; what comes all the same rests in suspense.
                to, decision = (IntentState.EXPIRED, None) if intent.awaits_money else (IntentState.FAILED, "VOID")
                await end_intents(uow, self._ports, [_abandoned(intent, to, decision)])
            case StrandedKind.UNTOLD:
                await self._looks.mark_parked(uow, intent.id)
                await self._alert(uow, each, "page", "the payment waits for a person")
                return "parked"
            case _:
                move = Move(intent.id, IntentState.UNRESOLVED, "unresolved", {"reason": each.kind}, parked=True)
                await self._ports.intents.move_locked_intents(uow, [move])
                await self._alert(uow, each, "page", f"nothing would move the payment any more: {each.kind}")
                return "parked"
        return "finished"

    async def _is_provably_unsent(self, uow: Any, intent: IntentRow) -> bool:
        """Whether no permit was ever given, and no restore may have lost one."""
        job_id = sending_job(intent)
        attempts = await self._ports.facts.attempts_of(uow, [job_id])
        positives = await self._ports.facts.unapplied_positives(uow, [intent.id])
        if attempts[job_id] or positives or intent.rail is None:
            return False
        state = await self._ports.rails.rail_state(uow, intent.rail)
        return intent.ledger_epoch >= state.ledger_epoch or state.epoch_cleared

    async def _release(self, uow: Any, each: Stranded) -> str:
        intent = (await self._ports.intents.load_intents(uow, [each.intent_id], lock=True))[each.intent_id]
        if not IntentState(intent.state).is_terminal:
            return "moved"
        settled = intent.state == IntentState.SETTLED
        if intent.decision == ("VOID" if settled else "POST"):
            await self._alert(uow, each, "page", f"the intent is {intent.state} and its decision {intent.decision}")
            return "parked"
        # By the same ids as ever: what was resolved meanwhile answers that it exists.
        await self._ports.ledger.apply(uow, post_transfers(intent) if settled else void_transfers(intent))
        await self._alert(uow, each, "ticket", f"money was still held after {intent.state}: it was released")
        return "finished"

    async def _alert(self, uow: Any, each: Stranded, severity: Any, detail: str) -> None:
        alert = Alert(each.tenant_id, severity, f"stranded_{each.kind}", each.intent_id, None, detail)
        await self._ports.facts.raise_alerts(uow, [alert])


def _abandoned(intent: IntentRow, to: IntentState, decision: Any) -> Ending:
    move = Move(
        intent.id,
        to,
        _OUTCOME,
        data={"reason": _OUTCOME},
        failure_code=_OUTCOME,
        failure_message="nothing would have moved the payment any more, and nothing was sent",
        decision=decision,
        parked=False,
    )
    return Ending.of(intent, move, _OUTCOME)
