"""What its provider tells of as otherwise than it ended here: asked about until the answer is definite.

A late word of a provider moves no money: that what ended unpaid was paid, or that what settled came back. It makes the
core ask by the reference, and what the answer says is settled as every answer is: money that proves paid after its void
rests in suspense, with a page; what came back is refunded. A word about a payment that is open waits for its end.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final, Protocol

from core.domain.ids import derive_id
from core.domain.jobs import JobRow
from core.domain.resolution import Pace
from core.domain.verdicts import NEGATIVE
from core.services.settling.facts import END_DOUBTED, Alert, Doubt, DoubtedEnds, Facts, NextAsk
from core.services.settling.resolve import question
from schemas.collections import PaymentSource
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
        alerts: list[Alert] = []
        as_told = [each.job for each in due if _is_as_told(each)]
        for each in due:
            if _is_as_told(each):
                continue
            registration = states[each.job.rail].registration
            operations = registration.operations if registration is not None else {}
            capabilities = operations.get(OperationType(each.job.operation))
            step, asked = _next(each, ports.pace, inquiry=capabilities is not None and capabilities.inquiry)
            asks.append(step)
            questions += asked
            if _tells(each, step):
                alerts.append(each.alert())
        await ports.jobs.insert_jobs(uow, questions)
        await ports.doubts.note(uow, asks)
        await ports.doubts.withdraw(uow, [job.id for job in as_told])
        # Found paid, it has an alert that says so, and what rests in suspense for it is on the books.
        paid = {step.job_id for step in asks if step.answer in _PAID}
        over = [each.job.intent_id for each in due if each.job.id in paid] + [job.intent_id for job in as_told]
        if over:
            because = "the books say what its provider says"
            await ports.facts.close_alerts(uow, over, END_DOUBTED, because)
        await ports.facts.raise_alerts(uow, alerts)
    return len(due)


def _is_as_told(doubt: Doubt) -> bool:
    """Whether a payment that was called paid settled without a question: nothing was in doubt."""
    return doubt.asks == 0 and not doubt.came_back and doubt.job.closed_at is not None and not doubt.unpaid


def _tells(doubt: Doubt, step: NextAsk) -> bool:
    """Whether a person is told: at once of what is called paid and ended unpaid, of a return only if it never shows."""
    if doubt.came_back:
        return step.answer == _UNANSWERED
    # What a register's line calls paid has its break.
    return doubt.anew and doubt.told_by == PaymentSource.CALLBACK and doubt.job.closed_at is not None


def _next(doubt: Doubt, pace: Pace, *, inquiry: bool) -> tuple[NextAsk, list[JobRow]]:
    job, after_s = doubt.job, pace.after_s(doubt.asks)
    if job.closed_at is None:
        # Its own inquiries go on. Looked at less and less often, and never later than twice the time that it took.
        return NextAsk(job.id, None, max(pace.first_s, doubt.age_s), None), []
    shown = frozenset({Verdict.RETURNED}) if doubt.came_back else _PAID
    if doubt.answer in shown | NEGATIVE:
        return NextAsk(job.id, None, None, doubt.answer), []
    if doubt.asked:
        return NextAsk(job.id, None, after_s, None), []
    # Each time it is told of anew it is asked about as often again.
    spent = doubt.asks > 0 and doubt.asks % MOST_ASKS == 0 and not doubt.anew
    if not inquiry or spent:
        return NextAsk(job.id, None, None, _UNANSWERED), []
    asked = replace(question(job, JobKind.INQUIRE), id=derive_id(job.id, END_DOUBTED, str(doubt.asks + 1)))
    return NextAsk(job.id, asked.id, after_s, None), [asked]
