"""One granted job at the provider: the order is built from the permit, the call is bounded, errors are verdicts."""

import asyncio
import logging
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Sequence
from functools import cache
from typing import Final, NamedTuple, TypeVar

from prometheus_client import Counter, Histogram

from adapters.runtime import errors, metrics, verdicts
from adapters.runtime.port import Cancels, Collects, Inquires, LooksUp, Order, Outcome, PaysMany, Rail, Refunds
from adapters.runtime.timing import clock_s
from adapters.runtime.verdicts import Action
from schemas.jobs import Job
from schemas.operations import JobKind
from schemas.permits import Granted
from schemas.results import Verdict
from wire.failpoints import failpoint, may_fire

log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

_DURING_S: Final = 0.02
"""How long into a call the failpoint `adapter.during_call` lies."""


class Call(NamedTuple):
    """How a call went, whatever it said: `failed` is a provider that did not work, never one that said no."""

    elapsed_s: float
    failed: bool = False
    throttled: bool = False
    after_s: float = 0.0
    """How long the provider asked to be left alone."""


class Executed(NamedTuple):
    """What was done and what came of it; `call` is None where no call was begun."""

    action: Action
    outcome: Outcome
    call: Call | None = None


def call_of(elapsed_s: float, error: Exception | None) -> Call:
    """Return what the end of a call says about the provider's health."""
    if isinstance(error, errors.Throttled):
        return Call(elapsed_s, throttled=True, after_s=error.after_s or 0.0)
    if error is None or isinstance(error, errors.Rejected):
        return Call(elapsed_s)
    if isinstance(error, errors.NotSent):
        # A request that the rail itself, or the provider in words, did not take is an answer.
        return Call(elapsed_s, failed=error.reason == errors.NO_CONNECTION)
    return Call(elapsed_s, failed=True)


def disagreement(job: Job, granted: Granted) -> str:
    """Return in what the stream's entry contradicts the permit; empty where it does not."""
    if granted.kind is not job.kind:
        return "kind"
    if (granted.amount_minor, granted.currency) != (job.amount_minor, job.currency):
        return "amount"
    return ""


def order_of(granted: Granted, action: Action) -> Order:
    """Build the order from the permit alone."""
    told = granted.instruction
    asks = action in (Action.INQUIRE, Action.CANCEL)
    return Order(
        granted.job_id,
        (told.target_reference if asks else None) or granted.reference,
        granted.amount_minor,
        granted.currency,
        granted.provider_account,
        told.payee,
        told.message,
        told.lookup,
        told.operation,
        told.expires_at,
    )


def subject_of(granted: Granted) -> JobKind:
    """Return what kind of job a permit is about: for a question, the one that is asked about."""
    return granted.instruction.target_kind or granted.kind


@cache
def _seconds(rail: str, action: Action) -> Histogram:
    return metrics.CALL_SECONDS.labels(rail, action.value)


@cache
def _calls(rail: str, action: Action, verdict: Verdict) -> Counter:
    return metrics.CALLS.labels(rail, action.value, verdict.value)


class Executor:
    """Calls a rail under T_psp and never lets an error out: what is unclassified may have been executed."""

    def __init__(self, rail: Rail, name: str, call_total_s: float) -> None:
        self._rail, self._name, self._call_total_s = rail, name, call_total_s
        self._pays_many = rail if isinstance(rail, PaysMany) else None
        registration = rail.registration()
        self._scope = (registration.provider_account, registration.environment)
        self.misconfigured = False

    async def execute(self, granted: Granted, sent_at_s: float) -> Executed:
        """Do what the permit allows, unless S has passed since it was asked for or it is of another scope."""
        action = verdicts.action_of(granted.kind, granted.mode)
        refused = self._refused(action, granted, clock_s() - sent_at_s)
        if refused is not None:
            return Executed(action, refused)
        begun_s, failure = time.monotonic(), None
        try:
            outcome = verdicts.checked(action, await self._bounded(self._call(action, granted)))
            self.misconfigured = False
        except Exception as error:  # noqa: BLE001 - whatever a rail raises is a fact about money
            failure, outcome = error, self._learn(action, error)
        elapsed_s = time.monotonic() - begun_s
        _seconds(self._name, action).observe(elapsed_s)
        _calls(self._name, action, outcome.verdict).inc()
        return Executed(action, outcome, call_of(elapsed_s, failure))

    def pays_together(self, granted: Granted) -> bool:
        """Whether this permit may share one call of the rail with others: a submission, where the rail takes many."""
        submits = verdicts.action_of(granted.kind, granted.mode) is Action.SUBMIT
        return self._pays_many is not None and submits and granted.kind is JobKind.PAY

    async def execute_many(self, permits: Sequence[Granted], sent_at_s: float) -> list[Executed]:
        """Submit these payments in one call under one T_psp. Each is refused and judged as `execute` would alone.

        Every permit is one that `pays_together`.
        """
        age_s = clock_s() - sent_at_s
        refused = [self._refused(Action.SUBMIT, granted, age_s) for granted in permits]
        orders = [order_of(granted, Action.SUBMIT) for granted, no in zip(permits, refused, strict=True) if no is None]
        told = iter(await self._submit(orders) if orders else [])
        return [next(told) if no is None else Executed(Action.SUBMIT, no) for no in refused]

    async def _submit(self, orders: Sequence[Order]) -> list[Executed]:
        assert self._pays_many is not None  # noqa: S101 - `pays_together` was asked first
        begun_s, failure = time.monotonic(), None
        try:
            answers = await self._bounded(self._pays_many.pay_many(orders))
            self.misconfigured = False
            outcomes = [self._judged(answer) for _, answer in zip(orders, answers, strict=True)]
        except Exception as error:  # noqa: BLE001 - whatever a rail raises is a fact about money
            failure, outcomes = error, [self._learn(Action.SUBMIT, error)] * len(orders)
        call = call_of(time.monotonic() - begun_s, failure)
        _seconds(self._name, Action.SUBMIT).observe(call.elapsed_s)
        for verdict, count in Tally(outcome.verdict for outcome in outcomes).items():
            _calls(self._name, Action.SUBMIT, verdict).inc(count)
        return [Executed(Action.SUBMIT, outcome, call) for outcome in outcomes]

    def _judged(self, answer: Outcome | Exception) -> Outcome:
        if isinstance(answer, Exception):
            return self._learn(Action.SUBMIT, answer)
        try:
            return verdicts.checked(Action.SUBMIT, answer)
        except Exception as error:  # noqa: BLE001 - an answer that is none may stand for a payment that was made
            return self._learn(Action.SUBMIT, error)

    def _refused(self, action: Action, granted: Granted, age_s: float) -> Outcome | None:
        if age_s >= granted.send_by_s:
            lapsed = errors.NotSent("the permit lapsed before it was used", reason="permit_lapsed")
            return verdicts.of_error(action, lapsed)
        if (granted.provider_account, granted.environment) != self._scope:
            # Asked under other credentials, a provider truthfully denies, or buries, what another account paid.
            foreign = errors.NotSent("the order is of another provider account", reason="other_account", after_s=5)
            return verdicts.of_error(action, foreign)
        return None

    async def _bounded(self, call: Awaitable[_Answer]) -> _Answer:
        during = None
        if may_fire():
            during = asyncio.get_running_loop().call_later(_DURING_S, failpoint, "adapter.during_call")
        try:
            async with asyncio.timeout(self._call_total_s):
                return await call
        finally:
            if during is not None:
                during.cancel()

    async def _call(self, action: Action, granted: Granted) -> Outcome:
        rail, order, subject = self._rail, order_of(granted, action), subject_of(granted)
        if subject is JobKind.COLLECT and isinstance(rail, Collects):
            called = {Action.SUBMIT: rail.collect, Action.CANCEL: rail.cancel_collection}
            return await called.get(action, rail.check_collection)(order)
        if subject is JobKind.REFUND and isinstance(rail, Refunds):
            return await (rail.refund if action is Action.SUBMIT else rail.check_refund)(order)
        if subject in (JobKind.COLLECT, JobKind.REFUND):
            raise errors.Rejected("capability_missing", f"this rail cannot {subject.value}")
        if action is Action.SUBMIT:
            return await rail.pay(order)
        if action is Action.LOOKUP and isinstance(rail, LooksUp):
            return await rail.lookup(order)
        if action is Action.INQUIRE and isinstance(rail, Inquires):
            return await rail.inquire(order)
        if action is Action.CANCEL and isinstance(rail, Cancels):
            return await rail.cancel(order)
        raise errors.NotSent(f"this rail cannot {action.value}", reason="capability_missing")

    def _learn(self, action: Action, error: Exception) -> Outcome:
        if isinstance(error, errors.ProtocolViolation):
            metrics.VIOLATIONS.labels(self._name).inc()
            log.error("protocol violation on %s", action.value)
        elif isinstance(error, errors.Misconfigured):
            self.misconfigured = True
            log.error("misconfigured: %s", error)
        elif not isinstance(error, errors.AdapterError | TimeoutError):
            log.error("unclassified %s on %s", type(error).__name__, action.value)
        return verdicts.of_error(action, error)
