"""The one place where a Redis client is made, so that no write is ever repeated behind our back."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from wire.places import Address, ClusterGuide, Guide, Placed, SentinelGuide

SOCKET_TIMEOUT_S = 10.0
BLOCK_MS = 2_000
"""How long a read may wait in the server: well below the socket's time-out."""


class _Packed(AbstractConnection):
    """Writes a command by hiredis: thousands of arguments cost a tenth of what redis-py's loop takes."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return the command as the protocol writes it."""
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        return [hiredis.pack_command((*name.split(), *args[1:]))]

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Write a packed command. Raises redis-py's ConnectionError and TimeoutError.

        redis-py writes under `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes while the
        write ends: a task that was told to stop went on for ever, and each command cost a task of its own.
        """
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()  # type: ignore[no-untyped-call]  # untyped upstream
        if isinstance(command, str):
            command = command.encode()
        writer = self._writer
        if writer is None:
            raise RedisConnectionError("the connection was closed while it was opened")
        try:
            writer.writelines([command] if isinstance(command, bytes) else command)
            if writer.transport.get_write_buffer_size():  # seldom: most commands are sent at once
                async with asyncio.timeout(self.socket_timeout):
                    await writer.drain()
        except TimeoutError:
            await self.disconnect(nowait=True)
            raise RedisTimeoutError("Timeout writing to socket") from None
        except OSError as error:
            await self.disconnect(nowait=True)
            raise RedisConnectionError(f"Error while writing to socket: {error}") from error
        except BaseException:
            # Half a command may be written: nobody may use this connection again.
            await self.disconnect(nowait=True)
            raise


class _PackedConnection(_Packed, Connection):
    """By TCP."""


class _PackedSocketConnection(_Packed, UnixDomainSocketConnection):
    """By a socket of the file system."""


class _PackedTLSConnection(_Packed, SSLConnection):
    """By TCP under TLS."""


class _PlacedPackedConnection(_Packed, Placed):
    """By TCP, to wherever the server is now."""


class _PlacedTLSConnection(_Packed, Placed, SSLConnection):
    """By TCP under TLS, to wherever the server is now."""


class _Once(Redis):
    """Sends each command once. redis-py wraps each into repeats, which we never want, and into figures for
    OpenTelemetry, which nobody collects: an eighth of what a command cost.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command and return its answer. Raises redis-py's errors."""
        pool = self.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # untyped upstream
        try:
            # Whatever goes wrong on the way, both end the connection: no late answer is another command's.
            await connection.send_command(*args)
            return await self.parse_response(connection, args[0], **options)
        finally:
            await pool.release(connection)


_PACKED: Final[dict[type[AbstractConnection], type[AbstractConnection]]] = {
    Connection: _PackedConnection,
    UnixDomainSocketConnection: _PackedSocketConnection,
    SSLConnection: _PackedTLSConnection,
}
_PLACED: Final[dict[type[AbstractConnection], type[AbstractConnection]]] = {
    Connection: _PlacedPackedConnection,
    SSLConnection: _PlacedTLSConnection,
}
_SCHEMES: Final = {
    "redis-cluster": ("redis", "cluster"),
    "rediss-cluster": ("rediss", "cluster"),
    "redis-sentinel": ("redis", "sentinel"),
    "rediss-sentinel": ("rediss", "sentinel"),
}
_SENTINEL_OPTIONS: Final = ("master", "sentinel_username", "sentinel_password")


class StreamServers:
    """The client of each rail's server, however many servers are behind the address.

    `of` takes a rail, or a shard of one: its keys are in one slot, so one client reaches them all. Several rails share
    a client where they share a server for good.
    """

    def __init__(self, url: str, client_name: str) -> None:
        """Raise ValueError where the address is none; nothing is opened before the first command."""
        self._address, self._name = _parse(url), client_name
        self._guide = _guide(self._address, client_name)
        self._clients: dict[int, Redis] = {}

    def of(self, rail: str) -> Redis:
        """Return the client whose commands go to the server of this rail's keys."""
        key = f"{{{rail}}}"
        group = 0 if self._guide is None else self._guide.group_of(key)
        if group not in self._clients:
            self._clients[group] = _client(self._address, self._name, self._guide, key)
        return self._clients[group]

    async def each(self) -> list[Redis]:
        """Return a new client of every server, replicas included, for what servers do not tell each other."""
        if self._guide is None:
            return [_client(self._address, self._name, None, "")]
        return [_client_at(self._address, self._name, each) for each in await self._guide.servers()]

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()


def connect_redis(url: str, client_name: str) -> Redis:
    """A client of the one server at an address, with zero automatic retries. Answers are bytes.

    `url` is redis://, rediss:// or, for a server of this machine, unix://user:password@/path/to/socket?db=0; or
    redis-sentinel://, as `StreamServers` takes it. Raises ValueError for a cluster: a client there serves a rail.
    """
    address = _parse(url)
    if address.kind == "cluster":
        raise ValueError("a cluster has many servers: ask StreamServers for a rail's")
    return _client(address, client_name, _guide(address, client_name), "")


class _RedisAddress(NamedTuple):
    """An address taken apart: what redis-py understands, and of what kind of servers it is."""

    plain_url: str
    kind: str
    hosts: list[Address]
    options: dict[str, str]


def _parse(url: str) -> _RedisAddress:
    scheme, kind = _SCHEMES.get(url.partition("://")[0], ("", "one"))
    if kind == "one":
        ConnectionPool.from_url(url)  # raises ValueError
        return _RedisAddress(url, kind, [], {})
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    default = 26379 if kind == "sentinel" else 6379
    found = [
        (each.hostname or "localhost", each.port or default) for each in (urlsplit(f"//{h}") for h in hosts.split(","))
    ]
    query = dict(parse_qsl(parts.query))
    options: dict[str, str] = {name: query.pop(name) for name in _SENTINEL_OPTIONS if name in query}
    if kind == "sentinel" and not options.get("master"):
        raise ValueError("redis-sentinel:// needs ?master=NAME, the name that the Sentinels watch")
    plain = f"{scheme}://{user}{at}{hosts.partition(',')[0]}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    return _RedisAddress(plain, kind, found, options)


def _guide(address: _RedisAddress, name: str) -> Guide | None:
    if address.kind == "cluster":
        return ClusterGuide(address.hosts, partial(_client_at, address, name))
    if address.kind == "sentinel":
        options = address.options
        login = {"username": options.get("sentinel_username"), "password": options.get("sentinel_password"), "db": 0}
        return SentinelGuide(address.hosts, options["master"], partial(_client_at, address, name, login=login))
    return None


def _pool(address: _RedisAddress, name: str) -> ConnectionPool:
    return ConnectionPool.from_url(
        address.plain_url,
        client_name=name,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=5.0,
        health_check_interval=0,
        decode_responses=False,
    )


def _client(address: _RedisAddress, name: str, guide: Guide | None, key: str) -> Redis:
    """Return a client of the one server that an address means, or of the one that has this key."""
    pool = _pool(address, name)
    if guide is None:
        pool.connection_class = _PACKED[pool.connection_class]
        return _Once.from_pool(pool)
    pool.connection_class = _PLACED[pool.connection_class]
    known: list[Address] = []

    async def find() -> Address:
        home = await guide.home_of(key)
        if known != [home]:
            known[:] = [home]
            # What idles is connected to where the server was.
            await pool.disconnect(inuse_connections=False)
        return home

    pool.connection_kwargs["find"] = find
    return _Once.from_pool(pool)


def _client_at(
    address: _RedisAddress, name: str, where: Address, login: Mapping[str, str | int | None] | None = None
) -> Redis:
    """Return a client of one server of several."""
    pool = _pool(address, name)
    pool.connection_class = _PACKED[pool.connection_class]
    pool.connection_kwargs |= {"host": where[0], "port": where[1], **(login or {})}
    return _Once.from_pool(pool)
