"""The one door through which a hold is resolved: decision, ledger, state and jobs in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self
from uuid import UUID

from core.domain.intents import IntentRow, Move, may_move
from core.domain.jobs import JobRow, Waiting
from core.domain.ledger import Transfer, TransferResult
from core.domain.operations import post_transfers, posting_transfers, void_transfers
from core.domain.verdicts import all_negative
from core.services.ledger_port import Ledger
from core.services.settling.facts import Facts
from core.services.settling.rails import Rails
from core.services.terms.limits import LimitBook
from schemas.events import IntentState
from schemas.operations import JobKind

_HELD = frozenset({IntentState.REVIEW, IntentState.AUTHORIZED, IntentState.DISPATCHED, IntentState.UNRESOLVED})
_DONE = frozenset({TransferResult.OK, TransferResult.EXISTS})


class ResolutionRefusedError(RuntimeError):
    """The ledger or an intent's state refused a decision that its locked rows allowed; nothing may commit."""


RACES: Final = 3
"""A wallet may spend, freeze or close between our look and the ledger's: the next attempt sees it so."""


class Jobs(Protocol):
    """What closing, settling and resolving need of the jobs' store."""

    async def lock_jobs(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, JobRow]: ...

    async def insert_jobs(self, uow: Any, jobs: Sequence[JobRow]) -> None: ...

    async def lock_jobs_and_intents(
        self, uow: Any, ids: Sequence[UUID], more_intents: Sequence[UUID]
    ) -> tuple[dict[UUID, JobRow], dict[UUID, IntentRow]]: ...

    async def due_jobs(self, uow: Any, limit: int) -> Sequence[JobRow]: ...

    async def targets_of(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, UUID]: ...

    async def close_jobs_of(self, uow: Any, outcomes: Sequence[tuple[UUID, str]]) -> None: ...

    async def close_jobs(self, uow: Any, outcomes: Sequence[tuple[UUID, str]]) -> None: ...

    async def wait_jobs(self, uow: Any, waits: Sequence[Waiting]) -> None: ...

    async def requeue_jobs(self, uow: Any, jobs: Sequence[tuple[JobRow, float]]) -> None: ...


class Intents(Protocol):
    """What closing needs of the intents' store."""

    async def load_intents(self, uow: Any, ids: Sequence[UUID], *, lock: bool = False) -> dict[UUID, IntentRow]: ...

    async def move_intents(self, uow: Any, moves: Sequence[Move]) -> set[UUID]: ...

    async def move_locked_intents(self, uow: Any, moves: Sequence[Move]) -> None: ...


class ClosePorts(Protocol):
    """What the door works with."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def intents(self) -> Intents: ...
    @property
    def facts(self) -> Facts: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def rails(self) -> Rails: ...
    @property
    def limits(self) -> LimitBook: ...


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of one intent whose rows are locked, as it was before; the move's decision resolves its hold."""

    intent: IntentRow
    state: IntentState
    held: bool
    move: Move
    outcome: str

    @classmethod
    def of(cls, intent: IntentRow, move: Move, outcome: str) -> Self:
        """Return the end of an intent that is still as it was read."""
        return cls(intent, IntentState(intent.state), is_held(intent) or _may_credit(intent), move, outcome)


def is_held(intent: IntentRow) -> bool:
    """Whether money of the intent is held and undecided; nothing is held for money that has yet to come in."""
    return intent.state in _HELD and intent.decision is None and not intent.awaits_money


def _may_credit(intent: IntentRow) -> bool:
    return intent.awaits_money and intent.decision is None


async def end_intents(
    uow: Any,
    ports: ClosePorts,
    endings: Sequence[Ending],
    further: Sequence[Transfer] = (),
    settled: Sequence[IntentRow] = (),
) -> None:
    """Resolve the holds, move the intents and close all their jobs; apply `further` transfers with theirs.

    `settled` are intents that were made settled: what they have at limits is committed too.

    The caller holds the locks and has proven each decision. Once per transaction: accounts are locked in order only
    within one application, and two would deadlock with an acceptance. Raises ResolutionRefusedError.
    """
    transfers: list[Transfer] = []
    for ending in endings:
        if not may_move(ending.state, ending.move.to):
            raise ResolutionRefusedError(f"{ending.intent.id} is {ending.state}, not open")
        if ending.move.decision is not None and not ending.held:
            raise ResolutionRefusedError(f"{ending.intent.id} holds nothing to {ending.move.decision}")
        if ending.move.decision == "POST" and ending.intent.awaits_money:
            transfers += posting_transfers(ending.intent)
        elif ending.move.decision == "POST":
            transfers += post_transfers(ending.intent)
        elif ending.move.decision == "VOID":
            transfers += void_transfers(ending.intent)
    ends = [(ending.intent, ending.move.to) for ending in endings]
    if endings or settled:
        await ports.limits.end(uow, ends, settled)
    if endings:
        await ports.intents.move_locked_intents(uow, [ending.move for ending in endings])
        await ports.jobs.close_jobs_of(uow, [(ending.intent.id, ending.outcome) for ending in endings])
    if parked := [ending.intent.id for ending in endings if ending.state is IntentState.UNRESOLVED]:
        await ports.facts.close_alerts(uow, parked, "unresolved", "the payment has ended")
    transfers += further
    if transfers:
        # Last, so that hot accounts are locked for the shortest time; a refusal undoes all of the above.
        refused = {answer for answer in await ports.ledger.apply(uow, transfers) if answer not in _DONE}
        if refused:
            raise ResolutionRefusedError(f"the ledger answered {', '.join(sorted(refused))}")


async def close_if_unsent(
    uow: Any,
    ports: ClosePorts,
    job_ids: Sequence[UUID],
    *,
    to: IntentState,
    type: str,  # noqa: A002 - the event's own word
    failure_code: str | None = None,
    failure_message: str | None = None,
) -> set[UUID]:
    """Close jobs that no permit was ever given for, void their holds and end their intents; return the intents.

    See `unsent_endings` for what is left as it is.
    """
    endings = await unsent_endings(
        uow, ports, job_ids, to=to, type=type, failure_code=failure_code, failure_message=failure_message
    )
    await end_intents(uow, ports, endings)
    return {ending.intent.id for ending in endings}


async def unsent_endings(
    uow: Any,
    ports: ClosePorts,
    job_ids: Sequence[UUID],
    *,
    to: IntentState,
    type: str,  # noqa: A002 - the event's own word
    failure_code: str | None = None,
    failure_message: str | None = None,
) -> list[Ending]:
    """Return the endings, for `end_intents`, of the intents whose jobs no permit was ever given for.

    A collection, for which nothing is held, ends by its permits' negatives too, where every one has its own.

    What was sent, is decided, has an unapplied "paid" fact, or is older than an uncleared ledger epoch is left
    as it is. Locks the jobs, then the intents: a permit and this door never both win.
    """
    jobs, intents = await ports.jobs.lock_jobs_and_intents(uow, job_ids, [])
    positives = await ports.facts.unapplied_positives(uow, sorted(intents))
    states = {rail: await ports.rails.rail_state(uow, rail) for rail in sorted({job.rail for job in jobs.values()})}
    collects = [job.id for job in jobs.values() if job.fence > 0 and job.kind is JobKind.COLLECT]
    attempts = await ports.facts.attempts_of(uow, collects) if collects else {}
    refused = {job_id for job_id, views in attempts.items() if views and all_negative(views.values())}
    endings: dict[UUID, Ending] = {}
    for job in jobs.values():
        intent, state = intents[job.intent_id], states[job.rail]
        doubted = job.ledger_epoch < state.ledger_epoch and not state.epoch_cleared
        if (job.fence > 0 and job.id not in refused) or job.closed_at is not None or doubted or intent.id in positives:
            continue
        if IntentState(intent.state).is_terminal or (is_held(intent) and not job.kind.moves_money):
            continue
        move = Move(
            intent.id,
            to,
            type,
            data={"reason": failure_code} if failure_code else {},
            failure_code=failure_code,
            failure_message=failure_message,
            decision="VOID" if is_held(intent) else None,
            parked=False,
        )
        endings[intent.id] = Ending.of(intent, move, failure_code or type)
    return list(endings.values())
