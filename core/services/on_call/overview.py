"""Two questions at a glance: is money safe, is work stuck."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from core.domain.context import Context
from core.services.access.keys import Caller
from core.services.on_call.redrives import background_context, reach


@dataclass(frozen=True, slots=True)
class Figure:
    """How many of something wait, and for how long the oldest has; `label` is a rail, a stream or a kind."""

    name: str
    label: str
    count: int
    oldest_s: int | None


@dataclass(frozen=True, slots=True)
class StreamLine:
    """One stream's group: what waits there, and what is held unacknowledged.

    `lag` is None where the server lost count.
    """

    stream: str
    group: str
    length: int
    lag: int | None
    pending: int
    oldest_s: int


class Streams(Protocol):
    """Looks at the streams. Raises OSError where their server is away."""

    async def look(self) -> Sequence[StreamLine]: ...


class Figures(Protocol):
    """Reads figures of one tenant, or of all."""

    async def read(self, uow: Any, tenant_id: UUID | None) -> list[Figure]: ...


class OverviewPorts(Protocol):
    """What the overview reads from, under the worker role."""

    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...
    @property
    def overview(self) -> Figures: ...


async def read_overview(ports: OverviewPorts, caller: Caller) -> dict[str, list[Figure]]:
    """Return the figures by name, of what the caller reaches."""
    found: dict[str, list[Figure]] = {}
    async with ports.unit_of_work(background_context(caller)) as uow:
        for figure in await ports.overview.read(uow, reach(caller)):
            found.setdefault(figure.name, []).append(figure)
    return found
