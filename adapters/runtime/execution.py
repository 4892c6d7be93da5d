"""One granted job at the provider: the order is built from the permit, the call is bounded, errors are verdicts."""

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import cache
from typing import Final

from prometheus_client import Counter, Histogram

from adapters.runtime import errors, metrics, verdicts
from adapters.runtime.port import Cancels, Inquires, LooksUp, Order, Outcome, Rail
from adapters.runtime.timing import clock_s
from adapters.runtime.verdicts import Action
from schemas.jobs import Job
from schemas.permits import Granted
from schemas.results import Verdict
from wire.failpoints import failpoint, may_fire

log = logging.getLogger(__name__)

_DURING_S: Final = 0.02
"""How long into a call the failpoint `adapter.during_call` lies."""


@dataclass(frozen=True, slots=True)
class Executed:
    """What was done and what came of it."""

    action: Action
    outcome: Outcome


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
        job_id=granted.job_id,
        reference=(told.target_reference if asks else None) or granted.reference,
        amount_minor=granted.amount_minor,
        currency=granted.currency,
        provider_account=granted.provider_account,
        payee=told.payee,
        message=told.message,
        lookup=told.lookup,
    )


@cache
def _counted(rail: str, action: Action, verdict: Verdict) -> tuple[Histogram, Counter]:
    return (
        metrics.CALL_SECONDS.labels(rail, action.value),
        metrics.CALLS.labels(rail, action.value, verdict.value),
    )


class Executor:
    """Calls a rail under T_psp and never lets an error out: what is unclassified may have been executed."""

    def __init__(self, rail: Rail, name: str, call_total_s: float) -> None:
        self._rail, self._name, self._call_total_s = rail, name, call_total_s
        registration = rail.registration()
        self._scope = (registration.provider_account, registration.environment)
        self.misconfigured = False

    async def execute(self, granted: Granted, sent_at_s: float) -> Executed:
        """Do what the permit allows, unless S has passed since it was asked for or it is of another scope."""
        action = verdicts.action_of(granted.kind, granted.mode)
        if clock_s() - sent_at_s >= granted.send_by_s:
            lapsed = errors.NotSent("the permit lapsed before it was used", reason="permit_lapsed")
            return Executed(action, verdicts.of_error(action, lapsed))
        if (granted.provider_account, granted.environment) != self._scope:
            # Asked under other credentials, a provider truthfully denies, or buries, what another account paid.
            foreign = errors.NotSent("the order is of another provider account", reason="other_account", after_s=5)
            return Executed(action, verdicts.of_error(action, foreign))
        begun_s = time.monotonic()
        during = None
        if may_fire():
            during = asyncio.get_running_loop().call_later(_DURING_S, failpoint, "adapter.during_call")
        try:
            async with asyncio.timeout(self._call_total_s):
                outcome = verdicts.checked(action, await self._call(action, order_of(granted, action)))
            self.misconfigured = False
        except Exception as error:  # noqa: BLE001 - whatever a rail raises is a fact about money
            outcome = self._learn(action, error)
        finally:
            if during is not None:
                during.cancel()
        seconds, calls = _counted(self._name, action, outcome.verdict)
        seconds.observe(time.monotonic() - begun_s)
        calls.inc()
        return Executed(action, outcome)

    async def _call(self, action: Action, order: Order) -> Outcome:
        rail = self._rail
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
