"""Where the server of a rail is: what a Sentinel names, or the master of the rail's slot in a cluster.

The client stays redis-py's plain one: only where its connections go is looked up, each time that one is opened. That is
enough because every command here names the keys of one rail, hence of one slot (docs/adr).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, ReadOnlyError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

T = TypeVar("T")
Address = tuple[str, int]
Open = Callable[[Address], Redis]
Find = Callable[[], Awaitable[Address]]

_NOT_HERE: Final = (AskError, ClusterDownError, ReadOnlyError, TryAgainError)
"""MOVED is a kind of ASK, and MASTERDOWN of CLUSTERDOWN."""
_ASK_WITHIN_S: Final = 2.0


class NotHereError(RedisConnectionError):
    """The server does not serve this rail now: it moved, or its cluster is down. Nothing was executed."""


class Placed(Connection):
    """A connection that looks for its server each time it is opened."""

    def __init__(self, *, find: Find, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._find = find

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Open the connection to where the server is now. Raises redis-py's ConnectionError."""
        if not self.is_connected:
            self.host, self.port = await self._find()
        await super().connect_check_health(check_health, retry_socket_connect)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Return an answer. Raises NotHereError where the server does not serve us: the next connection looks again."""
        try:
            return await super().read_response(*args, **kwargs)
        except _NOT_HERE as error:
            await self.disconnect(nowait=True)
            raise NotHereError(f"{type(error).__name__}: {error}") from error


class Guide(Protocol):
    """Knows where servers are. Every method raises redis-py's ConnectionError where nobody tells."""

    async def home_of(self, key: str) -> Address:
        """Return where what writes this key must go now."""

    async def servers(self) -> list[Address]:
        """Return every server, replicas included."""

    def group_of(self, key: str) -> int:
        """Return a number that keys share which always have one home."""


class SentinelGuide:
    """Asks the Sentinels in turn who the master is; the one that answered is asked first the next time."""

    def __init__(self, sentinels: Sequence[Address], master: str, open_sentinel: Open) -> None:
        self._sentinels, self._master, self._open = list(sentinels), master, open_sentinel

    async def home_of(self, key: str) -> Address:  # noqa: ARG002  one server has every key
        """Return the master that the first Sentinel to answer names."""
        found = await _first(self._sentinels, self._open, self._ask_master)
        if found is None:
            raise RedisConnectionError(f"no Sentinel knows a master named {self._master}")
        return found

    async def servers(self) -> list[Address]:
        """Return the master and its replicas."""
        replicas = await _first(self._sentinels, self._open, self._ask_replicas) or []
        return [await self.home_of(""), *replicas]

    def group_of(self, key: str) -> int:  # noqa: ARG002  one server has every key
        """Return the one group."""
        return 0

    async def _ask_master(self, sentinel: Redis, _: Address) -> Address | None:
        found: Any = await sentinel.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self._master)  # type: ignore[no-untyped-call] # untyped upstream
        return None if not found else (_text(found[0]), int(found[1]))

    async def _ask_replicas(self, sentinel: Redis, _: Address) -> list[Address] | None:
        found: Any = await sentinel.sentinel_slaves(self._master)
        return [(_text(each["ip"]), int(each["port"])) for each in found if not each["is_sdown"]]


class ClusterGuide:
    """Asks the nodes of a cluster who serves a slot: whoever answered last, else any other that was ever named."""

    def __init__(self, seeds: Sequence[Address], open_node: Open) -> None:
        self._nodes, self._open = list(seeds), open_node
        self._asking: asyncio.Task[_Slots] | None = None

    async def home_of(self, key: str) -> Address:
        """Return the master of the key's slot."""
        slot = self.group_of(key)
        for first, last, nodes in await self._slots():
            if first <= slot <= last:
                return nodes[0]
        raise NotHereError(f"no master serves slot {slot}")

    async def servers(self) -> list[Address]:
        """Return every master and replica."""
        return list(dict.fromkeys(node for _, _, nodes in await self._slots() for node in nodes))

    def group_of(self, key: str) -> int:
        """Return the key's slot."""
        return int(key_slot(key.encode()))

    async def _slots(self) -> "_Slots":
        # Connections that broke together ask together: one question serves them all.
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_any())
        return await asyncio.shield(self._asking)

    async def _ask_any(self) -> "_Slots":
        found = await _first(self._nodes, self._open, _ask_slots)
        if found is None:
            raise RedisConnectionError("no node of the cluster knows who serves its slots")
        named = [node for _, _, nodes in found for node in nodes]
        self._nodes = list(dict.fromkeys([*self._nodes[:1], *random.sample(named, len(named)), *self._nodes[1:]]))
        return found


_Slots = list[tuple[int, int, list[Address]]]
"""First and last slot of each range, and who serves it: its master first."""


async def _ask_slots(node: Redis, address: Address) -> _Slots | None:
    ranges: Any = await node.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call] # untyped upstream
    found: _Slots = [
        # A node that does not know its own name says nothing: it is where it was asked.
        (int(first), int(last), [(_text(host) or address[0], int(port)) for host, port, *_ in serving])
        for first, last, *serving in ranges
    ]
    return found or None


async def _first(
    addresses: list[Address], open_one: Open, ask: Callable[[Redis, Address], Awaitable[T | None]]
) -> T | None:
    """Return the first answer, and put who gave it first; None where nobody has one."""
    for address in list(addresses):
        client = open_one(address)
        try:
            async with asyncio.timeout(_ASK_WITHIN_S):
                answer = await ask(client, address)
        except (RedisError, OSError, TimeoutError):
            continue
        finally:
            await client.aclose()
        if answer is not None:
            addresses.remove(address)
            addresses.insert(0, address)
            return answer
    return None


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""
