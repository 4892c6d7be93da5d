"""What each process may do on the server: an adapter can forge nothing, and the core touches its rails alone."""

from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from schemas.streams import control_stream, jobs_dlq_stream, jobs_stream, rate_bucket, results_stream, shards_of

_SETINFO = "+client|setinfo"


def adapter_rules(rail: str, shards: int = 1) -> list[str]:
    """The ACL rules of one rail's adapter: it reads jobs, adds results, and never the other way round.

    A function's inner commands are checked against the caller per command, so the settle step needs every
    selector below to hold on its own.
    """
    names = shards_of(rail, shards)
    jobs, control, results, dead = (
        " ".join(f"~{stream(shard)}" for shard in names)
        for stream in (jobs_stream, control_stream, results_stream, jobs_dlq_stream)
    )
    bucket = f"~{rate_bucket(rail)}"
    return [
        "-@all",
        "+ping +hello +auth +client|setname +client|setinfo +client|no-evict +select +time +cluster|slots",
        f"(+xreadgroup +xack +xautoclaim +xclaim +xpending +xinfo|groups {jobs} {control})",
        f"(+xadd {results} {dead})",
        f"(+hmget +hset {bucket})",
        f"(+fcall {jobs} {control} {results} {dead} {bucket})",
    ]


def core_rules(shards: Sequence[str]) -> list[str]:
    """The ACL rules of the core: it moves, trims and heals its rails' streams, and empties or reconfigures nothing.

    It may load functions, since it alone puts them back after a loss; it may not delete them.
    """
    return [
        "-@all",
        "+ping +hello +auth +client|setname +client|setinfo +client|no-evict +select +time +info +cluster|slots",
        "+xadd +xlen +xrange +xdel +xtrim +xpending +xinfo|groups +xinfo|consumers +xinfo|stream",
        "+xreadgroup +xack +xclaim +xautoclaim +xgroup|create +xgroup|delconsumer",
        "+fcall +function|load +get +set",
        *(f"~{{{shard}}}:*" for shard in shards),
    ]


async def apply_core_acl(admin_client: Redis, user: str, password: str, shards: Sequence[str]) -> None:
    """Create or replace the core's user."""
    await _apply(admin_client, user, password, core_rules(shards))


async def apply_acl(admin_client: Redis, user: str, password: str, rail: str, shards: int = 1) -> None:
    """Create or replace the adapter's user of one rail."""
    await _apply(admin_client, user, password, adapter_rules(rail, shards))


async def _apply(admin_client: Redis, user: str, password: str, lines: Sequence[str]) -> None:
    rules: list[str] = []
    for line in lines:
        rules += [line] if line.startswith("(") else line.split()
    try:
        await _set_user(admin_client, user, password, rules)
    except ResponseError as error:
        if _SETINFO not in str(error):
            raise
        # Redis 7.0 has no such command; a client that tries it there is answered, and goes on.
        await _set_user(admin_client, user, password, [rule for rule in rules if rule != _SETINFO])


async def _set_user(admin_client: Redis, user: str, password: str, rules: list[str]) -> None:
    command = ["ACL", "SETUSER", user, "reset", "on", f">{password}", *rules]
    await admin_client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
