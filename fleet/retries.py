"""What the client raises, and which of it is worth another attempt."""

import asyncio
from typing import Final

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_after_delay
from tenacity.wait import wait_base, wait_exponential, wait_random

from schemas.api import Problem

_RETRIED_STATUS: Final = frozenset({429, 500, 502, 503, 504})
# Each attempt has a fresh nonce: one that was seen before is our own, sent again by a proxy between.
_RETRIED_CODES: Final = frozenset({"idempotency_in_flight", "replayed_nonce"})


class FleetError(Exception):
    """Base of what this client raises.

    FleetError
    ├── Refused      the core answered with a problem; nothing will change by repeating the same request
    └── Unreachable  no answer within the retries; the request may have been taken: repeat it under the same key
    """


class Refused(FleetError):  # noqa: N818 - named by outcome, as the errors of the adapters are
    """The core's problem details (RFC 9457): `problem.code` is stable, `problem.detail` names the remedy."""

    def __init__(self, problem: Problem, retry_after_s: int | None = None) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem
        self.retry_after_s = retry_after_s


class Unreachable(FleetError):  # noqa: N818 - named by outcome
    """The core gave no usable answer: the request may have been taken."""


def retrying(attempts: int, give_up_after_s: int) -> AsyncRetrying:
    """Return the attempts at a request, so many within so many seconds; between them it waits what the core says.

    Eight attempts outlast a core that restarts, and say within a quarter of a minute that there is none.
    """
    return AsyncRetrying(
        stop=stop_after_attempt(attempts) | stop_after_delay(give_up_after_s),
        wait=_WaitAsTold(wait_exponential(multiplier=0.2, max=3) + wait_random(0, 0.3)),
        retry=retry_if_exception(may_help),
        reraise=True,
        sleep=asyncio.sleep,
    )


class _WaitAsTold(wait_base):
    """Wait what Retry-After says, else back off with jitter."""

    def __init__(self, otherwise: wait_base) -> None:
        self._otherwise = otherwise

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if isinstance(error, Refused) and error.retry_after_s is not None:
            return error.retry_after_s
        return self._otherwise(retry_state)


def may_help(error: BaseException) -> bool:
    """Whether the same request may be answered otherwise."""
    if isinstance(error, Refused):
        return error.problem.status in _RETRIED_STATUS or error.problem.code in _RETRIED_CODES
    return isinstance(error, httpx.TransportError)
