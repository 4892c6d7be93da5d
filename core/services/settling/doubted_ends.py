"""What ended unpaid here, and was told of as paid afterwards: asked about until the answer is definite.

A late word of a provider moves no money. It makes the core ask by the reference, and what the answer says is settled as
every answer is: money that proves paid after its void rests in suspense, with a page.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final, Protocol

from core.domain.ids import derive_id
from core.domain.jobs import JobRow
from core.domain.resolution import Pace
from core.domain.verdicts import NEGATIVE
from core.services.settling.facts import END_DOUBTED, Doubt, DoubtedEnds, Facts, NextAsk
from core.services.settling.resolve import question
from schemas.operations import JobKind, OperationType
from schemas.results import Verdict

MOST_ASKS: Final = 24
"""After so many answers that say nothing definite, a person and the day's register decide."""
_PAID: Final = frozenset({Verdict.SUCCEEDED, Verdict.RETURNED})
_UNANSWERED: Final = "unanswered"


class DoubtPorts(Protocol):
    """What asking works with."""

    @property
    def doubts(self) -> DoubtedEnds: ...
    @property
    def jobs(self) -> Any: ...
    @property
    def rails(self) -> Any: ...
    @property
    def facts(self) -> Facts: ...
    @property
    def pace(self) -> Pace: ...


async def ask_about_ends(
    ports: DoubtPorts, unit_of_work: Callable[[], AbstractAsyncContextManager[Any]], limit: int
) -> int:
    """Ask anew about what is due, or end it by its answer; return how many were looked at."""
    async with unit_of_work() as uow:
        due = await ports.doubts.due(uow, limit)
        if not due:
            return 0
        states = {rail: await ports.rails.rail_state(uow, rail) for rail in sorted({each.job.rail for each in due})}
        questions: list[JobRow] = []
        asks: list[NextAsk] = []
        for each in due:
            registration = states[each.job.rail].registration
            operations = registration.operations if registration is not None else {}
            capabilities = operations.get(OperationType(each.job.operation))
            step, asked = _next(each, ports.pace, inquiry=capabilities is not None and capabilities.inquiry)
            asks.append(step)
            questions += asked
        await ports.jobs.insert_jobs(uow, questions)
        await ports.doubts.note(uow, asks)
        # Found paid, it has an alert that says so, and what rests in suspense for it is on the books.
        paid = {step.job_id for step in asks if step.answer in _PAID}
        over = [each.job.intent_id for each in due if each.job.id in paid]
        if over:
            await ports.facts.close_alerts(uow, over, END_DOUBTED)
    return len(due)


def _next(doubt: Doubt, pace: Pace, *, inquiry: bool) -> tuple[NextAsk, list[JobRow]]:
    job, after_s = doubt.job, pace.after_s(doubt.asks)
    if doubt.answer in _PAID | NEGATIVE:
        return NextAsk(job.id, None, None, doubt.answer), []
    if doubt.asked:
        return NextAsk(job.id, None, after_s, None), []
    # Each time it is told of anew it is asked about as often again.
    spent = doubt.asks > 0 and doubt.asks % MOST_ASKS == 0 and not doubt.anew
    if not inquiry or spent:
        return NextAsk(job.id, None, None, _UNANSWERED), []
    asked = replace(question(job, JobKind.INQUIRE), id=derive_id(job.id, END_DOUBTED, str(doubt.asks + 1)))
    return NextAsk(job.id, asked.id, after_s, None), [asked]
