"""Rounds of the resolver: each second, and nearly always nothing is due."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from core.services.settling.settle import UnitOfWorkFactory

Look = Callable[[Any, int], Awaitable[Any]]
Act = Callable[[], Awaitable[object]]


async def act_where_due(looking: UnitOfWorkFactory, rounds: Sequence[tuple[Look, Act]]) -> None:
    """Act on those, in their order, of which a look finds any.

    In `looking` each statement is a transaction of its own; what is there is taken by `act` in its own unit of work.
    Raises what an act raises.
    """
    for look, act in rounds:
        if await _finds_any(looking, look):
            await act()


async def _finds_any(looking: UnitOfWorkFactory, look: Look) -> bool:
    try:
        async with looking() as uow:
            return bool(await look(uow, 1))
    except Exception:  # noqa: BLE001 - whoever acts meets the same, and knows whether the others may go on
        return True


async def until_fewer(act: Callable[[], Awaitable[int]], limit: int) -> None:
    """Act until it finds fewer than the limit of one act."""
    while await act() == limit:
        pass
