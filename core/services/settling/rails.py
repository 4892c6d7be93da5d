"""Rails: registration by their adapters, pausing and resuming by people."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson

from core.domain.permits import Gates
from schemas.rails import RailRegistration


class TimingRefusedError(ValueError):
    """The registered timing breaks the inequality that the protocol stands on; the text has the numbers."""


class RegistrationLimitedError(Exception):
    """Whoever declares is for some tenants alone, and the rail is not registered so."""


class RailUnknownError(LookupError):
    """No adapter of this rail, or of this operation, ever registered."""


@dataclass(frozen=True, slots=True)
class RailState:
    """What holds for one rail at the transaction's time."""

    now: datetime
    registration: RailRegistration | None
    paused: frozenset[str]
    ledger_epoch: int
    epoch_cleared: bool
    epoch_raised_at: datetime
    waiting: frozenset[str] = frozenset()
    """Operations that cannot go on though nobody paused them: the streams are away, or the provider is (`*`: all)."""

    def waits(self, operation: str) -> bool:
        """Whether the operation, or the whole rail, is paused or waits: then nothing of it that is unsent expires."""
        return not {"*", operation}.isdisjoint(self.paused | self.waiting)

    def gates(self, *, throttled: bool) -> Gates:
        """Return what a permit is decided by. Raises RailUnknownError."""
        if self.registration is None:
            raise RailUnknownError("the rail is not registered")
        return Gates(
            self.now, self.registration.timing, self.ledger_epoch, self.epoch_cleared, self.paused, throttled=throttled
        )


class Rails(Protocol):
    """What the use cases need of the rails' store."""

    async def rail_state(self, uow: Any, rail: str) -> RailState: ...

    async def register_rail(self, uow: Any, rail: str, body: str, body_hash: bytes) -> int: ...

    async def registered_rail(self, uow: Any, rail: str) -> tuple[int, RailRegistration] | None: ...

    async def pause_rail(self, uow: Any, rail: str, operation: str, actor: str, reason: str) -> bool: ...

    async def resume_rail(self, uow: Any, rail: str, operation: str) -> int: ...

    async def known_rails(self, uow: Any) -> Sequence[str]: ...

    async def note_waits(
        self, uow: Any, rail: str, operations: Sequence[str], cause: str, holds_s: float
    ) -> Sequence[str]: ...


async def register(uow: Any, rails: Rails, registration: RailRegistration, *, limited: bool = False) -> int:
    """Keep what an adapter declares as a version of its rail and return the version; a repeat is the same one.

    Who is `limited` to some tenants may only repeat what is registered. Raises RegistrationLimitedError where it is
    not, and TimingRefusedError where S + T_psp < I < H < dedup window does not hold.
    """
    check_timing(registration)
    if limited:
        # The newest version decides for every tenant. Compared as read, so that a default that is new is no difference.
        match await rails.registered_rail(uow, registration.rail):
            case (int(version), kept) if kept == registration:
                return version
        raise RegistrationLimitedError("the rail is not registered so")
    body = registration.model_dump(mode="json")
    text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return await rails.register_rail(uow, registration.rail, text.decode(), hashlib.sha256(text).digest())


def check_timing(registration: RailRegistration) -> None:
    """Raise TimingRefusedError, with the numbers, unless every operation obeys the inequality."""
    timing = registration.timing
    sending_s = timing.send_by_s + timing.call_total_s
    if not sending_s < timing.claim_idle_s:
        raise TimingRefusedError(
            f"S + T_psp = {timing.send_by_s} + {timing.call_total_s} = {sending_s} s is not below I = "
            f"{timing.claim_idle_s} s: raise claim_idle_s or shorten the call"
        )
    for operation, capabilities in registration.operations.items():
        horizon_s, window_s = capabilities.not_found_horizon_s, capabilities.dedup_window_s
        if not timing.claim_idle_s < horizon_s:
            raise TimingRefusedError(
                f"I = {timing.claim_idle_s} s is not below H = {horizon_s} s of {operation}: raise not_found_horizon_s"
            )
        if capabilities.deduplicates_reference and window_s is not None and not horizon_s < window_s:
            raise TimingRefusedError(
                f"H = {horizon_s} s is not below the dedup window = {window_s} s of {operation}: "
                "declare deduplicates_reference false"
            )


async def pause(uow: Any, rails: Rails, rail: str, operation: str = "*", *, reason: str) -> bool:
    """Refuse new first permits of a rail or of one operation; return False where that held already."""
    return await rails.pause_rail(uow, rail, operation, uow.context.actor, reason)


async def resume(uow: Any, rails: Rails, rail: str, operation: str = "*") -> int:
    """Give first permits again; what waited unsent gets the pause added to its deadline. Return how many did."""
    return await rails.resume_rail(uow, rail, operation)
