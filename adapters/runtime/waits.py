"""Tells the core what a breaker holds back, again and again: what waits for a provider must not expire over it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from adapters.runtime.core_client import CoreRefusedError, CoreUnavailableError
from schemas.operations import OperationType
from schemas.rails import RailWaits

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
HOLDS_S: Final = 10.0
"""How long the core believes it: a breaker that is half open for a moment, or a lost message, ends no wait."""


class WaitsPort(Protocol):
    """Where waits are told."""

    async def say_waits(self, rail: str, waits: RailWaits) -> None:
        """Keep that these operations wait. Raises CoreUnavailableError or CoreRefusedError."""
        ...


async def tell_waits(port: WaitsPort, rail: str, held_back: Callable[[], Sequence[OperationType]]) -> None:
    """Tell what is held back while anything is, until cancelled."""
    while True:
        await asyncio.sleep(EVERY_S)
        operations = held_back()
        if not operations:
            continue
        try:
            await port.say_waits(rail, RailWaits(operations=list(operations), holds_s=HOLDS_S))
        except (CoreUnavailableError, CoreRefusedError) as error:
            log.warning("the core was not told what waits: %s", type(error).__name__)
