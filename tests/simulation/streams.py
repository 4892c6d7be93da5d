"""Streams with one consumer group each, as Redis has them: they deliver again, lose their tail, and may be wiped."""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from tests.simulation.hosts import Clockwork


class Holder(Protocol):
    """A consumer: until when it has kept an entry alive."""

    def alive_until_s(self, entry_id: str) -> float:
        """Return the last heartbeat, in virtual seconds; 0 for an entry that it does not hold."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One delivery of one entry."""

    entry_id: str
    body: str
    deliveries: int


@dataclass(slots=True)
class _Pending:
    holder: Holder
    since_s: float
    deliveries: int


@dataclass(slots=True)
class Stream:
    """The entries of one stream, what its group has delivered and not acked, and who waits for more."""

    world: Clockwork
    name: str
    entries: dict[str, str] = field(default_factory=dict)
    pending: dict[str, _Pending] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    epoch: int = 1
    _unread: dict[str, None] = field(default_factory=dict)
    _last: int = 0

    def add(self, body: str) -> str:
        """XADD. By chance the entry is doubled, as by a client that repeats, or lost, as by a fail-over."""
        entry_id = self._append(body)
        if self.world.happens(self.world.rates.entry_doubled):
            # At once, or when a group that was made anew at 0 delivers again what was acked.
            again_s = self.world.chance.choice((0.0, self.world.chance.uniform(0, 40)))
            self.world.loop.call_later(again_s, self._add_again, body)
        if self.world.happens(self.world.rates.entry_lost):
            self.world.note(self.name, "loses the entry", entry_id)
            self._forget(entry_id)
        self.arrived.set()
        return entry_id

    def read(self, holder: Holder, count: int) -> list[Entry]:
        """XREADGROUP: entries that nobody was given, now and then out of order."""
        waiting = list(self._unread)
        if len(waiting) > 1 and self.world.chance.random() < 0.2:
            self.world.chance.shuffle(waiting)
        chosen = waiting[:count]
        for entry_id in chosen:
            del self._unread[entry_id]
        return [self._give(holder, entry_id, 1) for entry_id in chosen]

    def claim(self, holder: Holder, idle_s: float, count: int) -> list[Entry]:
        """XAUTOCLAIM: entries that were not kept alive for `idle_s`."""
        limit_s = self.world.loop.time() - idle_s
        idle = [
            entry_id
            for entry_id, each in self.pending.items()
            if max(each.since_s, each.holder.alive_until_s(entry_id)) <= limit_s
        ]
        return [self._give(holder, each, self.pending[each].deliveries + 1) for each in idle[:count]]

    def owns(self, holder: Holder, entry_id: str) -> bool:
        """Whether the entry is still this consumer's."""
        found = self.pending.get(entry_id)
        return found is not None and found.holder is holder

    def ack(self, holder: Holder, entry_ids: list[str]) -> None:
        """The function fleet_ack: XACK and delete what is still ours."""
        for entry_id in entry_ids:
            if self.owns(holder, entry_id):
                self._forget(entry_id)

    def release(self, holder: Holder, entry_ids: list[str], idle_s: float) -> None:
        """The function fleet_release: claimable at once, and the delivery does not count."""
        for entry_id in entry_ids:
            if self.owns(holder, entry_id):
                found = self.pending[entry_id]
                found.deliveries = max(0, found.deliveries - 1)
                found.since_s = self.world.loop.time() - idle_s
                found.holder = _Nobody()

    def wipe(self) -> None:
        """Restart empty: entries, group and deliveries are gone; the healer makes a new epoch of it."""
        self.entries.clear()
        self.pending.clear()
        self._unread.clear()
        self.epoch += 1
        self.arrived.set()

    def lose_tail(self, count: int) -> None:
        """Fail over to a replica that had not got the last entries."""
        for entry_id in list(self.entries)[-count:]:
            self._forget(entry_id)
        self.epoch += 1

    def _add_again(self, body: str) -> None:
        self._append(body)
        self.arrived.set()

    def _append(self, body: str) -> str:
        self._last += 1
        entry_id = f"{self._last}-{self.epoch}"
        self.entries[entry_id] = body
        self._unread[entry_id] = None
        return entry_id

    def _give(self, holder: Holder, entry_id: str, deliveries: int) -> Entry:
        self.pending[entry_id] = _Pending(holder, self.world.loop.time(), deliveries)
        return Entry(entry_id, self.entries[entry_id], deliveries)

    def _forget(self, entry_id: str) -> None:
        self.entries.pop(entry_id, None)
        self.pending.pop(entry_id, None)
        self._unread.pop(entry_id, None)


class _Nobody:
    """Holds what was released."""

    def alive_until_s(self, entry_id: str) -> float:
        """Nobody keeps it alive."""
        return 0.0
