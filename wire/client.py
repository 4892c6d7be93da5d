"""The one place where a Redis client is made, so that no write is ever repeated behind our back."""

import asyncio
from collections.abc import Iterable
from typing import Any

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
            async with asyncio.timeout(self.socket_timeout):
                writer.writelines([command] if isinstance(command, bytes) else command)
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


_BY_SCHEME: dict[type[AbstractConnection], type[AbstractConnection]] = {
    UnixDomainSocketConnection: _PackedSocketConnection,
    SSLConnection: _PackedTLSConnection,
}


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
    pool.connection_class = _BY_SCHEME.get(pool.connection_class, pool.connection_class)
    return Redis.from_pool(pool)
