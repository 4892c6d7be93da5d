"""Follow what happens to payments: page by page, or as a stream that goes on until the payment has ended."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.intents import IntentRow
from core.services.access.keys import Caller
from core.services.payments.read_intents import visible
from core.services.problems import Refusal
from schemas.events import TERMINAL_STATES, EventPage, EventView, IntentState

_log = logging.getLogger(__name__)
_SCANNED: Final = 5_000
_PAGE: Final = 200
_WANTED_FOR_S: Final = 30
_POSITION_LONGEST: Final = 18


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are asked for; an empty `types` narrows nothing, `accounts` is what the key may see.

    Among `types` a state in which payments end, in small letters, means every event that brought one there.
    """

    types: tuple[str, ...] = ()
    accounts: Sequence[UUID] | None = None

    @property
    def ends(self) -> tuple[str, ...]:
        """The states that `types` names: of payments that end at once there is no event of that name."""
        return tuple(state for state in TERMINAL_STATES if state.lower() in self.types)

    @property
    def narrows(self) -> bool:
        """Whether anything is left out."""
        return bool(self.types) or self.accounts is not None


@dataclass(frozen=True, slots=True)
class TenantChanges:
    """Which intents of a tenant have new events."""

    tenant_id: UUID
    intents: frozenset[UUID]


class Events(Protocol):
    """Where events are read, as the tenant."""

    async def events_of_intent(
        self, uow: Any, intent_id: UUID, accounts: Sequence[UUID] | None, after: int, limit: int
    ) -> list[EventView]: ...

    async def events_between(
        self, uow: Any, wanted: EventFilter, after: int, upto: int, limit: int
    ) -> list[EventView]: ...

    async def position_after(self, uow: Any, after: int, upto: int, count: int) -> int: ...


class Watch(Protocol):
    """What is asked for all followers of this process at once, as background work."""

    async def settled(self) -> int:
        """Return the position up to which no event will be added any more."""
        ...

    async def want_wakes(self, for_s: int) -> None: ...

    async def changed(self, tenants: Sequence[UUID], after: int, upto: int) -> list[TenantChanges]: ...


class Intents(Protocol):
    """Where intents are read."""

    async def load_intents(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, IntentRow]: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How streams behave; durations in seconds."""

    open_max: int = 200
    keep_alive_s: float = 15
    longest_s: float = 900
    poll_s: float = 1
    gather_s: float = 0.02
    """Wakes that come closer together than this are one."""


@dataclass(slots=True, eq=False)
class Follower:
    """One open stream; `news` is set whenever it should read again."""

    tenant_id: UUID
    intent_id: UUID | None
    news: asyncio.Event = field(default_factory=asyncio.Event)


Renew = Callable[[], Awaitable[Caller | None]]
"""Says who asks as it is now; None where that one may ask no longer."""


class EventHub:
    """Wakes the streams of this process: one listening connection and one look at the log for all of them.

    Nothing runs and nothing is asked of writers while no stream is open.
    """

    def __init__(
        self, watch: Watch, listen: Callable[[Callable[[str], None]], Awaitable[None]], pace: Pace | None = None
    ) -> None:
        self._watch, self._listen, self.pace = watch, listen, pace or Pace()
        self._followers: set[Follower] = set()
        self._own: Counter[UUID] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._seen = 0
        self.closed = False

    async def settled(self) -> int:
        """Return the position up to which events may be handed out."""
        return await self._watch.settled()

    def follow(self, tenant_id: UUID, intent_id: UUID | None) -> Follower:
        """Take a place; give it back with `leave`. Raises Refusal `too_many_streams`.

        A tenant has at most as many as are free: however many it asks for, the others find places.
        """
        own, free = self._own[tenant_id], self.pace.open_max - len(self._followers)
        if self.closed or own >= free:
            text = f"this tenant has {own} of the process's streams and {free} are free: come again, or ask for pages"
            raise Refusal("too_many_streams", text)
        follower = Follower(tenant_id, intent_id)
        self._followers.add(follower)
        self._own[tenant_id] += 1
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._hear())]
        return follower

    def leave(self, follower: Follower) -> None:
        """Give a place back."""
        if follower in self._followers:
            self._followers.remove(follower)
            self._own -= Counter((follower.tenant_id,))
        if not self._followers:
            for task in self._tasks:
                task.cancel()
            self._tasks = []

    def close(self) -> None:
        """End every stream, for good: the process stops."""
        self.closed = True
        for follower in self._followers:
            follower.news.set()

    async def _hear(self) -> None:
        await self._listen(lambda _: self._wake.set())

    async def _look(self) -> None:
        wanted_until_s = 0.0
        failing = False
        while True:
            try:
                if time.monotonic() > wanted_until_s - _WANTED_FOR_S / 2:
                    await self._watch.want_wakes(_WANTED_FOR_S)
                    wanted_until_s = time.monotonic() + _WANTED_FOR_S
                await self._tell()
                failing = False
            except Exception as error:  # noqa: BLE001 - whatever one look met, the next one may not
                if not failing:
                    _log.warning("events cannot be looked for: %s", type(error).__name__)
                failing = True
            await asyncio.sleep(self.pace.gather_s)
            try:
                async with asyncio.timeout(self.pace.poll_s):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    async def _tell(self) -> None:
        upto = await self._watch.settled()
        if upto <= self._seen:
            return
        tenants = sorted({follower.tenant_id for follower in self._followers}, key=lambda tenant: tenant.int)
        changed = {
            each.tenant_id: each.intents
            for each in await self._watch.changed(tenants, max(self._seen, upto - _SCANNED), upto)
        }
        # After a long silence all are woken: what is further back than one look is theirs to read.
        everybody = upto - self._seen > _SCANNED
        self._seen = upto
        for follower in self._followers:
            intents = changed.get(follower.tenant_id, frozenset())
            if everybody or (intents if follower.intent_id is None else follower.intent_id in intents):
                follower.news.set()


class EventService:
    """Shows the events of the caller's tenant and accounts."""

    def __init__(
        self,
        unit_of_work: Callable[[Context], AbstractAsyncContextManager[Any]],
        events: Events,
        intents: Intents,
        hub: EventHub,
    ) -> None:
        self._unit_of_work, self._events, self._intents, self.hub = unit_of_work, events, intents, hub

    async def page_of_intent(self, caller: Caller, intent_id: UUID, cursor: str | None, limit: int) -> EventPage:
        """Return events of one intent. Raises Refusal: not_found, cursor_malformed."""
        after = position_of(cursor)
        async with self._unit_of_work(caller.context()) as uow:
            visible(await self._intents.load_intents(uow, [intent_id]), intent_id, caller)
            found = await self._events.events_of_intent(uow, intent_id, _covered(caller), after, limit + 1)
        more = len(found) > limit
        return EventPage(items=found[:limit], next_cursor=found[limit - 1].id if more else None)

    async def page(self, caller: Caller, types: tuple[str, ...], cursor: str | None, limit: int) -> EventPage:
        """Return events of all intents. Where few are wanted a page may be empty and still have a next one.

        Raises Refusal `cursor_malformed`.
        """
        after, upto = position_of(cursor), await self.hub.settled()
        found, reached = await self._read(caller, _wanted(caller, types), after, upto, limit)
        return EventPage(items=found, next_cursor=str(reached) if reached < upto and reached > after else None)

    async def has_ended(self, caller: Caller, intent_id: UUID, cursor: str | None) -> bool:
        """Whether the intent has ended and has no event behind the cursor. Raises as `page_of_intent`."""
        after = position_of(cursor)
        async with self._unit_of_work(caller.context()) as uow:
            intent = visible(await self._intents.load_intents(uow, [intent_id]), intent_id, caller)
            if not IntentState(intent.state).is_terminal:
                return False
            return not await self._events.events_of_intent(uow, intent_id, _covered(caller), after, 1)

    async def follow_intent(
        self, follower: Follower, renew: Renew, intent_id: UUID, cursor: str | None
    ) -> AsyncIterator[EventView | str]:
        """Yield the intent's events behind the cursor as they come; where nothing came for a while, where it stands.

        Ends after the event that ended the intent, when the stream has been open for long enough, or when who asked
        may ask no longer.
        """
        after = position_of(cursor)
        ends_s = time.monotonic() + self.hub.pace.longest_s
        while True:
            follower.news.clear()
            caller = await renew()
            if caller is None:
                return
            async with self._unit_of_work(caller.context()) as uow:
                found = await self._events.events_of_intent(uow, intent_id, _covered(caller), after, _PAGE)
            for event in found:
                after = int(event.id)
                yield event
            if found and len(found) < _PAGE and found[-1].state.is_terminal:
                return
            if len(found) < _PAGE:
                if await self._is_over(follower, ends_s):
                    return
                if not follower.news.is_set():
                    yield str(after)

    async def follow_all(
        self, follower: Follower, renew: Renew, types: tuple[str, ...], cursor: str | None
    ) -> AsyncIterator[EventView | str]:
        """Yield events of all intents behind the cursor, or from now on, for as long as who asked may ask.

        At first, and where nothing came for a while, it yields where it stands: who comes back from there misses
        nothing that happened in between.
        """
        after = await self.hub.settled() if cursor is None else position_of(cursor)
        yield str(after)
        ends_s = time.monotonic() + self.hub.pace.longest_s
        while True:
            follower.news.clear()
            upto = await self.hub.settled()
            # Asked behind the horizon: a wallet that a user got since is known before the events of its payments.
            caller = await renew()
            if caller is None:
                return
            reached = after
            if after < upto:
                found, reached = await self._read(caller, _wanted(caller, types), after, upto, _PAGE)
                for event in found:
                    yield event
                after = reached
            if reached >= upto:
                if await self._is_over(follower, ends_s):
                    return
                if not follower.news.is_set():
                    yield str(after)

    async def _read(
        self, caller: Caller, wanted: EventFilter, after: int, upto: int, limit: int
    ) -> tuple[list[EventView], int]:
        """Return events, and the position up to which everything was looked at."""
        if after >= upto:
            return [], after
        async with self._unit_of_work(caller.context()) as uow:
            if wanted.narrows:
                upto = await self._events.position_after(uow, after, upto, _SCANNED)
            found = await self._events.events_between(uow, wanted, after, upto, limit)
        return found, int(found[-1].id) if len(found) == limit else upto

    async def _is_over(self, follower: Follower, ends_s: float) -> bool:
        """Wait for news, or for the time of a sign of life; True where the stream should end."""
        left = ends_s - time.monotonic()
        if self.hub.closed or left <= 0:
            return True
        try:
            async with asyncio.timeout(min(self.hub.pace.keep_alive_s, left)):
                await follower.news.wait()
        except TimeoutError:
            return time.monotonic() >= ends_s
        return self.hub.closed


def _wanted(caller: Caller, types: tuple[str, ...]) -> EventFilter:
    return EventFilter(types, _covered(caller))


def _covered(caller: Caller) -> list[UUID] | None:
    return None if caller.accounts is None else sorted(caller.accounts, key=lambda each: each.int)


def position_of(cursor: str | None) -> int:
    """Return the position that a cursor names, 0 without one. Raises Refusal `cursor_malformed`."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _POSITION_LONGEST):
        raise Refusal("cursor_malformed", "use the id of the last event that was seen", field="cursor")
    return int(cursor)
