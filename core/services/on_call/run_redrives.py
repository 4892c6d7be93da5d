"""Runs redrives: a canary, then a ramp; each letter judged again in the transaction that acts upon it.

A transaction is the whole of a step: what a process that dies leaves behind is as if the step had not begun.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.jobs import JobRow
from core.domain.redrive import Redrive, allowed_by, failing, judge
from core.services.on_call.audit import Act, Journal
from core.services.on_call.redrives import Item, RedriveRow, Redrives, Tally
from core.services.settling.settle import Delivery, SettlePorts, UnitOfWorkFactory, settle_again
from schemas.on_call import RedriveAction, RedriveState
from wire.failpoints import failpoint
from wire.tracing import begin, is_on

_log = logging.getLogger(__name__)
_BATCH: Final = 200
_RUNNER: Final = "core"


class LetterBodies(Protocol):
    """Opens what was kept sealed."""

    def open_body(self, stream: str, entry_id: str, sealed: bytes) -> str: ...


class RunPorts(SettlePorts, Protocol):
    """What running redrives works with."""

    @property
    def redrives(self) -> Redrives: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def letters(self) -> Any: ...
    @property
    def result_reader(self) -> Any: ...


async def run_redrives(ports: RunPorts, unit_of_work: UnitOfWorkFactory) -> int:
    """Take every running redrive as far as its pace allows now; return how many letters were acted upon.

    Safe with several at once: a redrive is one process's at a time. Raises the ports' shared faults.
    """
    done, seen = 0, list[UUID]()
    async with unit_of_work() as uow:
        await ports.redrives.observe_ended(uow)
    while True:
        async with unit_of_work() as uow:
            row = await ports.redrives.take_running(uow, seen)
            if row is None:
                return done
            acted, results = await _step(uow, ports, row)
            failpoint("redrive.before_commit")
        failpoint("redrive.after_commit")
        for item in results:
            await _read_again(ports, unit_of_work, row, item)
        done += acted + len(results)
        if acted + len(results) == 0:
            seen.append(row.id)


async def run_redrives_if_any(ports: RunPorts, unit_of_work: UnitOfWorkFactory, looking: UnitOfWorkFactory) -> int:
    """Do what `run_redrives` does; where none runs that is known without a transaction.

    In `looking` each statement is a transaction of its own.
    """
    async with looking() as uow:
        await ports.redrives.observe_ended(uow)
        if await ports.redrives.take_running(uow, ()) is None:
            return 0
    return await run_redrives(ports, unit_of_work)


async def _step(uow: Any, ports: RunPorts, row: RedriveRow) -> tuple[int, Sequence[Item]]:
    """Act on the jobs whose turn it is; return how many, and the results that want a transaction each."""
    await ports.redrives.observe(uow, row.id)
    failpoint("redrive.observed")
    tally = await ports.redrives.tally(uow, row.id)
    in_canary = row.ramp_began_at is None
    failed, succeeded = tally.of("FAILED"), tally.of("SUCCEEDED")
    newest = tally.recent_known - tally.recent_failed
    if failing(failed, succeeded, row.stop_at_percent, canary=in_canary):
        because = f"{failed} of {failed + succeeded} known outcomes failed: the bound is {row.stop_at_percent} %"
    elif failing(tally.recent_failed, newest, row.stop_at_percent, canary=in_canary):
        because = (
            f"{tally.recent_failed} of the newest {tally.recent_known} failed: the bound is {row.stop_at_percent} %"
        )
    else:
        because = ""
    if because:
        await _end(uow, ports, row, RedriveState.STOPPED, because)
        return 0, ()
    if tally.of("WAITING") == 0:
        if tally.of("SENT") == 0:
            await _end(uow, ports, row, RedriveState.DONE, "every letter had its turn")
        return 0, ()
    if in_canary and tally.tried >= row.canary:
        if tally.of("SENT") == 0:
            await ports.redrives.change(uow, row.id, ramp_began_at="now")
            await _note(uow, ports, row, "redrive_canary_passed", {"succeeded": succeeded, "failed": failed})
            failpoint("redrive.canary_passed")
        return 0, ()
    room = min(_BATCH, _room(row, tally))
    if room <= 0:
        return 0, ()
    items = await ports.redrives.next_items(uow, row.id, room)
    failpoint("redrive.taken")
    jobs = [item for item in items if item.kept is None or row.action is RedriveAction.DISCARD]
    await _act(uow, ports, row, jobs)
    return len(jobs), [] if row.action is RedriveAction.DISCARD else [item for item in items if item.kept is not None]


def _room(row: RedriveRow, tally: Tally) -> int:
    if tally.ramped_ms is None:
        return row.canary - tally.tried
    return row.canary + allowed_by(tally.ramped_ms, row.rate_per_s, row.ramp_s) - tally.tried


async def _act(uow: Any, ports: RunPorts, row: RedriveRow, items: Sequence[Item]) -> None:
    if not items:
        return
    # The jobs are locked before they are judged: a permit, an answer or another redrive comes before this or after.
    locked = await ports.jobs.lock_jobs(uow, sorted({item.job_id for item in items if item.job_id is not None}))
    standings = await ports.redrives.standings(uow, [item.letter_id for item in items])
    ends: list[tuple[UUID, str, str, str]] = []
    jobs: set[UUID] = set()
    for item in items:
        judged = judge(standings[item.letter_id])
        if not standings[item.letter_id].letter_open:
            ends.append((item.letter_id, "SKIPPED", judged.verdict, judged.reason))
        elif row.action is RedriveAction.DISCARD:
            ends.append((item.letter_id, "SUCCEEDED", judged.verdict, "discarded"))
        elif judged.verdict is Redrive.SAFE or (
            judged.verdict is Redrive.INQUIRE_FIRST and row.decided_by is not None and item.doubted
        ):
            ends.append((item.letter_id, "SENT", judged.verdict, judged.reason))
            if item.job_id is not None:
                jobs.add(item.job_id)
        else:
            why = judged.reason if judged.verdict is Redrive.REFUSED else f"{judged.reason}; nobody approved that"
            ends.append((item.letter_id, "SKIPPED", judged.verdict, why))
    await ports.redrives.put_back(uow, sorted(jobs), _traced(row, [locked[job] for job in sorted(jobs)]))
    failpoint("redrive.put_back")
    acted = [letter for letter, state, _, _ in ends if state != "SKIPPED"]
    closed = "CLOSED" if row.action is RedriveAction.DISCARD else "REDRIVEN"
    await ports.redrives.close_letters(uow, acted, closed, f"{row.action.lower()} for {row.incident}: {row.reason}")
    failpoint("redrive.letters_closed")
    await ports.redrives.finish(uow, row.id, ends)
    failpoint("redrive.finished")
    await _journal(uow, ports, row, items, ends)
    failpoint("redrive.journalled")


def _traced(row: RedriveRow, jobs: Sequence[JobRow]) -> list[str]:
    """Begin a trace for each job that is sent anew; it links to the one in which the job died."""
    if not is_on():
        return []
    traces = []
    for job in jobs:
        told = {"redrive_id": str(row.id), "job_id": str(job.id), "intent_id": str(job.intent_id)}
        with begin("redrive", "INTERNAL", None, told, links=[job.traceparent or ""]) as traced:
            traces.append(traced.traceparent)
    return traces


async def _journal(
    uow: Any, ports: RunPorts, row: RedriveRow, items: Sequence[Item], ends: Sequence[tuple[UUID, str, str, str]]
) -> None:
    """Tell each tenant which of its letters were acted upon, and for whom."""
    states = {letter: state for letter, state, _, _ in ends}
    acts = []
    for tenant in sorted({item.tenant_id for item in items}):
        told: dict[str, list[str]] = {}
        for item in items:
            if item.tenant_id == tenant:
                told.setdefault(states[item.letter_id].lower(), []).append(str(item.letter_id))
        data = {"letters": told, "action": row.action, "asked_by": row.asked_by, "approved_by": row.decided_by}
        acts.append(Act(tenant, _RUNNER, "redrive_acted", f"redrive:{row.id}", data))
    await ports.journal.append(uow, acts)


async def _read_again(ports: RunPorts, unit_of_work: UnitOfWorkFactory, row: RedriveRow, item: Item) -> None:
    """Settle one result again, in a transaction of its own: whatever it does to the core, its neighbours go on."""
    try:
        async with unit_of_work() as uow:
            current = await ports.redrives.find(uow, row.id, None, lock=True)
            turn = await ports.redrives.next_items(uow, row.id, 1)
            if (
                current is None
                or current.state is not RedriveState.RUNNING
                or [x.letter_id for x in turn] != [item.letter_id]
            ):
                return
            await _settle_again(uow, ports, row, turn[0])
            failpoint("redrive.before_result_commit")
    except ports.shared_faults:
        raise
    except Exception as error:  # noqa: BLE001 - a result that still breaks the settler is told, the rest goes on
        _log.exception("the result of letter %s cannot be settled again", item.letter_id)
        async with unit_of_work() as uow:
            # The redrive before its letters, everywhere: their counts are kept with it.
            await ports.redrives.find(uow, row.id, None, lock=True)
            failed = (item.letter_id, "FAILED", Redrive.SAFE.value, f"it cannot be settled: {type(error).__name__}")
            await ports.redrives.finish(uow, row.id, [failed])
            await _journal(uow, ports, row, [item], [failed])


async def _settle_again(uow: Any, ports: RunPorts, row: RedriveRow, item: Item) -> None:
    if item.kept is None:
        return
    if item.job_id is not None:
        await ports.jobs.lock_jobs(uow, [item.job_id])
    judged = judge((await ports.redrives.standings(uow, [item.letter_id]))[item.letter_id])
    if judged.verdict is Redrive.REFUSED:
        end = (item.letter_id, "SKIPPED", judged.verdict.value, judged.reason)
    else:
        kept = item.kept
        body = ports.letters.open_body(kept.stream, kept.entry_id, kept.sealed)
        delivery: Delivery = ports.result_reader(kept.rail, kept.stream, kept.entry_id, body, kept.deliveries)
        why = await settle_again(uow, ports, delivery)
        if why:
            end = (item.letter_id, "FAILED", judged.verdict.value, f"it still cannot be used: {why}")
        else:
            end = (item.letter_id, "SUCCEEDED", judged.verdict.value, "the answer was read again and counts")
            await ports.redrives.close_letters(
                uow, [item.letter_id], "REDRIVEN", f"redrive for {row.incident}: {row.reason}"
            )
    await ports.redrives.finish(uow, row.id, [end])
    await _journal(uow, ports, row, [item], [end])


async def _end(uow: Any, ports: RunPorts, row: RedriveRow, state: RedriveState, because: str) -> None:
    released = await ports.redrives.release(uow, row.id)
    await ports.redrives.change(uow, row.id, state=state, ended_because=because, ended_at="now")
    await _note(uow, ports, row, f"redrive_{state.lower()}", {"because": because, "released": released})


async def _note(uow: Any, ports: RunPorts, row: RedriveRow, action: str, data: dict[str, Any]) -> None:
    await ports.journal.append(uow, [Act(row.tenant_id, _RUNNER, action, f"redrive:{row.id}", data)])
