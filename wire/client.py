"""The one place where a Redis client is made, so that no write is ever repeated behind our back."""

from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

SOCKET_TIMEOUT_S = 10.0
BLOCK_MS = 2_000
"""How long a read may wait in the server: well below the socket's time-out."""


class _Packed(AbstractConnection):
    """Writes a command by hiredis: thousands of arguments cost a tenth of what redis-py's loop takes."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return the command as the protocol writes it."""
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        return [hiredis.pack_command((*name.split(), *args[1:]))]


class _PackedConnection(_Packed, Connection):
    """By TCP."""


class _PackedSocketConnection(_Packed, UnixDomainSocketConnection):
    """By a socket of the file system."""


def connect_redis(url: str, client_name: str) -> Redis:
    """A client with zero automatic retries: a stalled server must not get an entry twice. Answers are bytes.

    `url` is redis://, rediss:// or, for a server of this machine, unix://user:password@/path/to/socket?db=0.
    """
    pool = ConnectionPool.from_url(
        url,
        connection_class=_PackedConnection,  # for redis:// alone: the scheme of others chooses their own class
        client_name=client_name,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=5.0,
        health_check_interval=0,
        decode_responses=False,
    )
    if pool.connection_class is UnixDomainSocketConnection:
        pool.connection_class = _PackedSocketConnection
    return Redis.from_pool(pool)
