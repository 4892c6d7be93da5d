"""Redrives: ask, approve, reject, cancel. What is asked for is a snapshot; `run_redrives` acts on it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from pydantic import BaseModel

from core.domain.context import Context
from core.domain.redrive import Redrive, Standing, judge
from core.services.access.keys import DEAD_LETTERS_SCOPE, REDRIVE_APPROVAL_SCOPE, Caller
from core.services.on_call.audit import Act, Journal
from core.services.on_call.dead_letters import LetterFilter
from core.services.problems import Refusal
from schemas.on_call import (
    LetterQuery,
    LetterSelection,
    RedriveAction,
    RedriveProgress,
    RedriveRequest,
    RedriveState,
    RedriveView,
)

SYSTEM_TENANT: Final = UUID(int=0)
"""A key of the system's tenant is an operator's of the whole installation: it reaches every tenant's letters."""


@dataclass(frozen=True, slots=True)
class RedriveRow:
    """One redrive as it is stored."""

    id: UUID
    tenant_id: UUID
    action: RedriveAction
    state: RedriveState
    reason: str
    incident: str
    selection: dict[str, Any]
    total: int
    canary: int
    rate_per_s: int
    ramp_s: int
    stop_at_percent: int
    asked_by: str
    counts: dict[str, Any] = field(default_factory=dict)
    evidence_id: UUID | None = None
    decided_by: str | None = None
    ended_because: str = ""
    ramp_began_at: datetime | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


_TERMS: Final = (
    "action", "selection", "reason", "incident", "canary", "rate_per_s", "ramp_s", "stop_at_percent",
)  # fmt: skip
"""What is asked for; who asks is not of it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A result that could not be used, sealed as it was kept."""

    rail: str
    stream: str
    entry_id: str
    deliveries: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Item:
    """One letter whose turn it is; `kept` is what a letter of a result has instead of a job to send."""

    letter_id: UUID
    tenant_id: UUID
    job_id: UUID | None
    doubted: bool
    """It was in doubt when the redrive was asked for: who approved that approved an inquiry first."""
    kept: Kept | None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many letters of a redrive are where, and for how long the ramp goes on."""

    states: Mapping[str, int]
    ramped_ms: int | None
    recent_failed: int = 0
    recent_known: int = 0
    """The newest known outcomes, `core.domain.redrive.RECENT` at most."""

    def of(self, state: str) -> int:
        """Return how many are in a state."""
        return self.states.get(state, 0)

    @property
    def acted(self) -> int:
        """How many had their turn."""
        return sum(self.states.values()) - self.of("WAITING")

    @property
    def tried(self) -> int:
        """How many were acted upon: what was skipped tells nothing about the rail."""
        return self.acted - self.of("SKIPPED")


class Redrives(Protocol):
    """What redrives need of their store."""

    async def insert(self, uow: Any, row: RedriveRow) -> bool: ...
    async def find(
        self, uow: Any, redrive_id: UUID, tenant_id: UUID | None, *, lock: bool = False
    ) -> RedriveRow | None: ...
    async def take_running(self, uow: Any, besides: Sequence[UUID]) -> RedriveRow | None: ...
    async def page(
        self, uow: Any, tenant_id: UUID | None, state: RedriveState | None, before: UUID | None, limit: int
    ) -> list[RedriveRow]: ...
    async def snapshot(self, uow: Any, redrive_id: UUID, wanted: LetterFilter) -> int: ...
    async def count_taken(self, uow: Any, wanted: LetterFilter) -> int: ...
    async def count_standings(
        self, uow: Any, wanted: LetterFilter | None, redrive_id: UUID | None = None
    ) -> list[tuple[Standing, int]]: ...
    async def change(self, uow: Any, redrive_id: UUID, **changed: Any) -> None: ...
    async def tally(self, uow: Any, redrive_id: UUID) -> Tally: ...
    async def observe(self, uow: Any, redrive_id: UUID) -> None: ...
    async def observe_ended(self, uow: Any) -> None: ...
    async def mark_doubted(self, uow: Any, redrive_id: UUID, standings: Sequence[Standing]) -> None: ...
    async def unapproved(self, uow: Any, actor: str) -> int: ...
    async def next_items(self, uow: Any, redrive_id: UUID, limit: int) -> list[Item]: ...
    async def standings(self, uow: Any, letters: Sequence[UUID]) -> dict[UUID, Standing]: ...
    async def put_back(self, uow: Any, jobs: Sequence[UUID], traceparents: Sequence[str] = ()) -> None: ...
    async def close_letters(self, uow: Any, letters: Sequence[UUID], state: str, because: str) -> None: ...
    async def finish(self, uow: Any, redrive_id: UUID, ends: Sequence[tuple[UUID, str, str, str]]) -> None: ...
    async def release(self, uow: Any, redrive_id: UUID) -> int: ...
    async def items(self, uow: Any, redrive_id: UUID, after: int, limit: int) -> list[dict[str, Any]]: ...


class OnCallPorts(Protocol):
    """What people on call work with, under the worker role; each use case names the tenant that it may reach."""

    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...
    @property
    def redrives(self) -> Redrives: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def approval_above(self) -> int: ...


def reach(caller: Caller) -> UUID | None:
    """Return whose rows the caller may touch; None is every tenant's, for a key of the system's own."""
    return None if caller.tenant_id == SYSTEM_TENANT else caller.tenant_id


def background_context(caller: Caller) -> Context:
    """Return the context of a use case under the worker role, which names its tenant in each statement."""
    return Context(None, caller.context().actor)


def filter_of(asked: LetterQuery | LetterSelection, caller: Caller) -> LetterFilter:
    """Return the letters that are asked for, of those that the caller may reach. Raises Refusal `not_found`."""
    return LetterFilter(**asked.model_dump(exclude={"tenant_id", "cursor", "limit"}), tenant_id=narrowed(asked, caller))


def narrowed(asked: BaseModel, caller: Caller) -> UUID | None:
    """Return whose rows are asked for: the caller's, or the tenant's whom one of the system's names.

    Raises Refusal `not_found` where another names a tenant that is not its own.
    """
    own, named = reach(caller), getattr(asked, "tenant_id", None)
    if own is not None and named not in (None, own):
        raise Refusal("not_found", "there is no such tenant", field="tenant_id")
    return own or named


@dataclass(frozen=True, slots=True)
class _Counts:
    verdicts: dict[str, int]
    reasons: dict[str, int]
    total: int
    doubted: Sequence[Standing] = ()

    @property
    def doubtful(self) -> int:
        return self.verdicts.get(Redrive.INQUIRE_FIRST, 0)

    def needs_approval(self, action: RedriveAction, above: int, alone: int) -> bool:
        """Whether a second person agrees; `alone` is what the first redrove without one within the hour."""
        return action is RedriveAction.DISCARD or self.doubtful > 0 or self.total + alone > above


def _counted(standings: Sequence[tuple[Standing, int]]) -> _Counts:
    verdicts: dict[str, int] = {}
    reasons: dict[str, int] = {}
    doubted = [standing for standing, _ in standings if judge(standing).verdict is Redrive.INQUIRE_FIRST]
    for standing, letters in standings:
        judged = judge(standing)
        verdicts[judged.verdict.value] = verdicts.get(judged.verdict.value, 0) + letters
        reasons[judged.reason] = reasons.get(judged.reason, 0) + letters
    return _Counts(verdicts, reasons, sum(verdicts.values()), doubted)


async def ask_redrive(ports: OnCallPorts, caller: Caller, request: RedriveRequest) -> RedriveView:
    """Count what a redrive would do, or take the snapshot and start it, or let it wait for a second person.

    The same request again returns the redrive. Raises Refusal: operation_not_permitted, nothing_selected,
    idempotency_conflict.
    """
    caller.require_operation(DEAD_LETTERS_SCOPE)
    wanted = filter_of(request.selection, caller)
    async with ports.unit_of_work(background_context(caller)) as uow:
        known = await ports.redrives.find(uow, request.id, reach(caller))
        if known is not None:
            require_same(known, _row(request, caller))
            return view_of(known, await ports.redrives.tally(uow, known.id))
        taken = await ports.redrives.count_taken(uow, wanted)
        alone = await ports.redrives.unapproved(uow, caller.context().actor)
        if request.dry_run:
            counts = _counted(await ports.redrives.count_standings(uow, wanted))
            waits = counts.needs_approval(request.action, ports.approval_above, alone)
            return _dry(request, caller, counts, waits, taken)
        row = _row(request, caller)
        if not await ports.redrives.insert(uow, row):
            raise Refusal("not_found", "this id is another tenant's redrive: choose a new one", field="id")
        total = await ports.redrives.snapshot(uow, row.id, wanted)
        if total == 0:
            text = f"no open letter matches, but {taken} that are in another redrive" if taken else "no letter matches"
            raise Refusal("nothing_selected", text, field="selection")
        counts = _counted(await ports.redrives.count_standings(uow, None, row.id))
        await ports.redrives.mark_doubted(uow, row.id, counts.doubted)
        waits = counts.needs_approval(request.action, ports.approval_above, alone)
        told = {"verdicts": counts.verdicts, "reasons": counts.reasons, "needs_approval": waits, "taken": taken}
        await ports.redrives.change(uow, row.id, total=total, counts=told)
        if not waits:
            await ports.redrives.change(uow, row.id, state=RedriveState.RUNNING, started_at="now")
        data = {"selection": row.selection, "total": total, "verdicts": counts.verdicts, **_why(row)}
        await _note(uow, ports, row, caller, "asked", data)
        made = await ports.redrives.find(uow, row.id, reach(caller))
        if made is None:
            raise Refusal("not_found", "there is no such redrive")
        return view_of(made, await ports.redrives.tally(uow, row.id))


def require_same(known: RedriveRow, asked: RedriveRow) -> None:
    """Refuse a known id with other terms: who asks would take another redrive's progress for that of this one.

    Raises Refusal `idempotency_conflict`.
    """
    differs = [name for name in _TERMS if getattr(known, name) != getattr(asked, name)]
    if differs:
        text = f"this id is a redrive with another {differs[0]}: choose a new one, or repeat what was asked"
        raise Refusal("idempotency_conflict", text, field="id")


async def approve_redrive(uow: Any, ports: OnCallPorts, caller: Caller, redrive_id: UUID, reason: str) -> RedriveRow:
    """Let a redrive run whose snapshot waits; approving it again changes nothing. Not by who asked for it.

    What is approved is what was counted when it was asked for: where more is in doubt by now, it is asked for anew.
    Raises Refusal: operation_not_permitted, not_found, redrive_own, wrong_redrive_state, redrive_changed.
    """
    caller.require_operation(REDRIVE_APPROVAL_SCOPE)
    row = await _locked(uow, ports, caller, redrive_id)
    actor = caller.context().actor
    if row.asked_by == actor:
        raise Refusal("redrive_own", "who asked for a redrive may not approve it: use another person's key")
    if row.decided_by == actor and row.state not in (RedriveState.AWAITING_APPROVAL, RedriveState.REJECTED):
        return row
    _require_state(row, RedriveState.AWAITING_APPROVAL)
    doubtful = _counted(await ports.redrives.count_standings(uow, None, row.id)).doubtful
    told = row.counts.get("verdicts", {}).get(Redrive.INQUIRE_FIRST, 0)
    if doubtful > told:
        text = f"{doubtful} letters may have been sent by now, and {told} when it was asked for: cancel it and ask anew"
        raise Refusal("redrive_changed", text)
    await ports.redrives.change(uow, row.id, state=RedriveState.RUNNING, decided_by=actor, started_at="now")
    await _note(uow, ports, row, caller, "approved", {"reason": reason})
    return row


async def reject_redrive(uow: Any, ports: OnCallPorts, caller: Caller, redrive_id: UUID, reason: str) -> None:
    """End a redrive that waits for approval; its letters are free again. Raises Refusal as `approve_redrive` does."""
    caller.require_operation(REDRIVE_APPROVAL_SCOPE)
    row = await _locked(uow, ports, caller, redrive_id)
    actor = caller.context().actor
    if row.asked_by == actor:
        raise Refusal("redrive_own", "who asked for a redrive cancels it instead of rejecting it")
    if row.state is RedriveState.REJECTED and row.decided_by == actor:
        return
    _require_state(row, RedriveState.AWAITING_APPROVAL)
    await ports.redrives.release(uow, row.id)
    await ports.redrives.change(
        uow, row.id, state=RedriveState.REJECTED, decided_by=actor, ended_because=reason, ended_at="now"
    )
    await _note(uow, ports, row, caller, "rejected", {"reason": reason})


async def cancel_redrive(uow: Any, ports: OnCallPorts, caller: Caller, redrive_id: UUID, reason: str) -> None:
    """Act on no further letter; what was sent stays sent. Cancelling again changes nothing.

    Raises Refusal: operation_not_permitted, not_found, wrong_redrive_state.
    """
    caller.require_operation(DEAD_LETTERS_SCOPE)
    row = await _locked(uow, ports, caller, redrive_id)
    if row.state is RedriveState.CANCELLED:
        return
    _require_state(row, RedriveState.AWAITING_APPROVAL, RedriveState.RUNNING)
    released = await ports.redrives.release(uow, row.id)
    await ports.redrives.change(uow, row.id, state=RedriveState.CANCELLED, ended_because=reason, ended_at="now")
    await _note(uow, ports, row, caller, "cancelled", {"reason": reason, "released": released})


async def show_redrive(uow: Any, ports: OnCallPorts, caller: Caller, redrive_id: UUID) -> RedriveView:
    """Return a redrive with its progress. Raises Refusal `not_found`."""
    row = await ports.redrives.find(uow, redrive_id, reach(caller))
    if row is None:
        raise Refusal("not_found", "there is no such redrive")
    return view_of(row, await ports.redrives.tally(uow, redrive_id))


def view_of(row: RedriveRow, tally: Tally) -> RedriveView:
    """Return a redrive as people see it."""
    progress = RedriveProgress(**{name: tally.of(name.upper()) for name in RedriveProgress.model_fields})
    shown = {name: getattr(row, name) for name in RedriveView.model_fields if hasattr(row, name)}
    return RedriveView(
        **shown,
        verdicts=row.counts.get("verdicts", {}),
        reasons=row.counts.get("reasons", {}),
        needs_approval=row.counts.get("needs_approval", False),
        taken=row.counts.get("taken", 0),
        progress=progress,
    )


async def _locked(uow: Any, ports: OnCallPorts, caller: Caller, redrive_id: UUID) -> RedriveRow:
    row = await ports.redrives.find(uow, redrive_id, reach(caller), lock=True)
    if row is None:
        raise Refusal("not_found", "there is no such redrive")
    return row


def _require_state(row: RedriveRow, *states: RedriveState) -> None:
    if row.state not in states:
        raise Refusal("wrong_redrive_state", f"the redrive is {row.state}: this needs {' or '.join(states)}")


def _why(row: RedriveRow) -> dict[str, str]:
    return {"action": row.action, "reason": row.reason, "incident": row.incident}


async def _note(
    uow: Any, ports: OnCallPorts, row: RedriveRow, caller: Caller, step: str, data: Mapping[str, Any]
) -> None:
    act = Act(row.tenant_id, caller.context().actor, f"redrive_{step}", f"redrive:{row.id}", data)
    await ports.journal.append(uow, [act])


def _row(request: RedriveRequest, caller: Caller) -> RedriveRow:
    return RedriveRow(
        id=request.id,
        tenant_id=caller.tenant_id,
        action=RedriveAction(request.action),
        state=RedriveState.AWAITING_APPROVAL,
        reason=request.reason,
        incident=request.incident,
        selection=request.selection.model_dump(mode="json", exclude_none=True),
        total=0,
        canary=request.canary,
        rate_per_s=request.rate_per_s,
        ramp_s=request.ramp_s,
        stop_at_percent=request.stop_at_percent,
        asked_by=caller.context().actor,
    )


def _dry(request: RedriveRequest, caller: Caller, counts: _Counts, needs_approval: bool, taken: int) -> RedriveView:
    row = _row(request, caller)
    told = {"verdicts": counts.verdicts, "reasons": counts.reasons, "needs_approval": needs_approval, "taken": taken}
    shown = {name: getattr(row, name) for name in RedriveView.model_fields if hasattr(row, name)}
    return RedriveView(**shown | {"state": "DRY_RUN", "total": counts.total} | told, progress=RedriveProgress())
