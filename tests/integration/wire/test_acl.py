"""What each Redis user may do and may not, command by command, on both families of servers."""

import uuid
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from schemas.envelope import Envelope
from schemas.streams import (
    ADAPTERS_GROUP,
    CORE_GROUP,
    control_stream,
    jobs_dlq_stream,
    jobs_stream,
    rate_bucket,
    results_dlq_stream,
    results_stream,
)
from tests.support.servers import BOTH_FAMILIES
from wire import functions
from wire.acl import apply_acl, apply_core_acl
from wire.client import connect_redis

RAIL, OTHER = "testrail", "other"
JOBS, CONTROL, RESULTS = jobs_stream(RAIL), control_stream(RAIL), results_stream(RAIL)
DEAD, BUCKET = jobs_dlq_stream(RAIL), rate_bucket(RAIL)
ONE = Envelope("job-1", "job", "{}")
Command = tuple[str | int, ...]
ENVELOPE: Command = ("1", "j", "job", "{}", "")

ADAPTER_MAY: tuple[Command, ...] = (
    ("PING",),
    ("TIME",),
    ("XREADGROUP", "GROUP", ADAPTERS_GROUP, "a", "COUNT", 1, "STREAMS", JOBS, ">"),
    ("XREADGROUP", "GROUP", ADAPTERS_GROUP, "a", "COUNT", 1, "STREAMS", CONTROL, ">"),
    ("XACK", JOBS, ADAPTERS_GROUP, "1-1"),
    ("XACK", CONTROL, ADAPTERS_GROUP, "1-1"),
    ("XAUTOCLAIM", JOBS, ADAPTERS_GROUP, "a", 0, "0-0"),
    ("XCLAIM", JOBS, ADAPTERS_GROUP, "a", 0, "1-1", "JUSTID"),
    ("XPENDING", JOBS, ADAPTERS_GROUP),
    ("XINFO", "GROUPS", CONTROL),
    ("XADD", RESULTS, "*", "v", "1"),
    ("XADD", DEAD, "*", "v", "1"),
    ("FCALL", "fleet_settle", 3, JOBS, RESULTS, DEAD, ADAPTERS_GROUP, "a", "1-1", "result", *ENVELOPE),
    ("FCALL", "fleet_ack", 1, JOBS, ADAPTERS_GROUP, "a", "1-1"),
    ("FCALL", "fleet_release", 1, JOBS, ADAPTERS_GROUP, "a", 1000, "1-1"),
    ("FCALL", "fleet_heartbeat", 1, CONTROL, ADAPTERS_GROUP, "a", "1-1"),
    ("FCALL", "fleet_deliveries", 1, JOBS, ADAPTERS_GROUP, "1-1"),
    ("FCALL", "fleet_take", 1, BUCKET, "10", 10, 0, 1),
)
ADAPTER_MAY_NOT: tuple[Command, ...] = (
    # forge work, or take it off the books
    ("XADD", JOBS, "*", "v", "1"),
    ("XADD", CONTROL, "*", "v", "1"),
    ("XADD", results_dlq_stream(RAIL), "*", "v", "1"),
    ("FCALL", "fleet_dispatch", 1, JOBS, *ENVELOPE),
    ("FCALL", "fleet_readd", 1, JOBS, ADAPTERS_GROUP, "1-1"),
    ("FCALL", "fleet_drop_consumer", 1, JOBS, ADAPTERS_GROUP, "a", 0),
    ("XDEL", JOBS, "1-1"),
    ("XTRIM", JOBS, "MAXLEN", 0),
    ("DEL", JOBS),
    ("UNLINK", RESULTS),
    ("RENAME", JOBS, RESULTS),
    ("EXPIRE", JOBS, 1),
    ("XGROUP", "CREATE", JOBS, "mine", "0"),
    ("XGROUP", "DESTROY", JOBS, ADAPTERS_GROUP),
    ("XGROUP", "SETID", JOBS, ADAPTERS_GROUP, "0"),
    ("XGROUP", "DELCONSUMER", JOBS, ADAPTERS_GROUP, "b"),
    # read what is the core's, or all at once
    ("XREADGROUP", "GROUP", CORE_GROUP, "x", "STREAMS", RESULTS, ">"),
    ("XREAD", "STREAMS", JOBS, "0"),
    ("XRANGE", RESULTS, "-", "+"),
    ("XRANGE", JOBS, "-", "+"),
    ("XACK", RESULTS, CORE_GROUP, "1-1"),
    ("XINFO", "CONSUMERS", JOBS, ADAPTERS_GROUP),
    ("KEYS", "*"),
    ("SCAN", 0),
    ("DUMP", JOBS),
    ("RANDOMKEY",),
    # another rail
    ("XADD", results_stream(OTHER), "*", "v", "1"),
    ("XACK", jobs_stream(OTHER), ADAPTERS_GROUP, "1-1"),
    ("XREADGROUP", "GROUP", ADAPTERS_GROUP, "a", "STREAMS", jobs_stream(OTHER), ">"),
    ("FCALL", "fleet_ack", 1, jobs_stream(OTHER), ADAPTERS_GROUP, "a", "1-1"),
    ("FCALL", "fleet_take", 1, rate_bucket(OTHER), "10", 10, 0, 1),
    ("FCALL", "fleet_settle", 3, JOBS, results_stream(OTHER), DEAD, ADAPTERS_GROUP, "a", "1-1", "result", *ENVELOPE),
    # the rate, but by the function
    ("SET", BUCKET, "9"),
    ("DEL", BUCKET),
    # the server
    ("EVAL", "return 1", 0),
    ("MULTI",),
    ("FUNCTION", "FLUSH"),
    ("FUNCTION", "LOAD", "REPLACE", "#!lua name=fleet\nredis.register_function('fleet_ack', function() return 1 end)"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "me", "on"),
    ("CLIENT", "KILL", "ID", 1),
    ("MONITOR",),
    ("SHUTDOWN", "NOSAVE"),
    ("REPLICAOF", "NO", "ONE"),
    ("DEBUG", "SLEEP", 0),
    ("INFO",),
    ("PUBLISH", "all", "x"),
)
CORE_MAY: tuple[Command, ...] = (
    ("XADD", JOBS, "*", "v", "1"),
    ("FCALL", "fleet_dispatch", 1, JOBS, *ENVELOPE),
    ("XREADGROUP", "GROUP", CORE_GROUP, "x", "COUNT", 1, "STREAMS", RESULTS, ">"),
    ("XTRIM", JOBS, "MINID", "0-1"),
    ("XGROUP", "CREATE", JOBS, "another", "0"),
    ("INFO", "memory"),
)
CORE_MAY_NOT: tuple[Command, ...] = (
    ("XADD", jobs_stream(OTHER), "*", "v", "1"),
    ("XGROUP", "DESTROY", JOBS, ADAPTERS_GROUP),
    ("DEL", JOBS),
    ("FLUSHALL",),
    ("FUNCTION", "FLUSH"),
    ("FUNCTION", "DELETE", "fleet"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("ACL", "SETUSER", "me", "on"),
    ("EVAL", "return 1", 0),
    ("KEYS", "*"),
)


@pytest.fixture
async def users(fresh_redis: str) -> AsyncIterator[dict[str, Redis]]:
    """A prepared server, and the users that may use it."""
    admin = connect_redis(fresh_redis, "admin")
    await functions.load_functions(admin)
    for rail in (RAIL, OTHER):
        await functions.ensure_groups(admin, rail)
        await functions.dispatch(admin, jobs_stream(rail), [ONE])
        await functions.dispatch(admin, control_stream(rail), [ONE])
    await apply_acl(admin, "adapter", "pw", RAIL)
    await apply_core_acl(admin, "core", "pw", [RAIL])
    parts, found = urlsplit(fresh_redis), {}
    for name in ("adapter", "core"):
        address = fresh_redis.replace(f"{parts.scheme}://{parts.netloc}", f"{parts.scheme}://{_at(parts.netloc, name)}")
        found[name] = connect_redis(address, name)
    yield {**found, "admin": admin}
    for client in (*found.values(), admin):
        await client.aclose()


def _at(netloc: str, name: str) -> str:
    return f"{name}:pw@{netloc.rpartition('@')[2]}"


async def _denied(user: Redis, command: Command) -> bool:
    try:
        await user.execute_command(*command)  # type: ignore[no-untyped-call]  # untyped upstream
    except NoPermissionError:
        return True
    except ResponseError as error:
        # What a function is refused inside comes as an error of the script.
        said = str(error).lower()
        return any(each in said for each in ("permission", "can't access", "can't run", "not allowed"))
    except RedisError as error:
        pytest.fail(f"{command}: {type(error).__name__}: {error}")
    return False


@BOTH_FAMILIES
async def test_an_adapter_may_do_its_work_and_nothing_else(users: dict[str, Redis]) -> None:
    assert len(ADAPTER_MAY) + len(ADAPTER_MAY_NOT) >= 40
    wrong = [each for each in ADAPTER_MAY if await _denied(users["adapter"], each)]
    wrong += [each for each in ADAPTER_MAY_NOT if not await _denied(users["adapter"], each)]
    assert wrong == []


@BOTH_FAMILIES
async def test_the_core_moves_its_rails_streams_and_empties_or_reconfigures_nothing(users: dict[str, Redis]) -> None:
    wrong = [each for each in CORE_MAY if await _denied(users["core"], each)]
    wrong += [each for each in CORE_MAY_NOT if not await _denied(users["core"], each)]
    assert wrong == []


@BOTH_FAMILIES
async def test_a_wrong_password_and_no_user_at_all_are_let_into_nothing(
    users: dict[str, Redis], fresh_redis: str
) -> None:
    if (await users["admin"].acl_whoami()) in (b"default", "default"):
        pytest.skip("this server's administrator is the default user, whom a deployment turns off")
    parts = urlsplit(fresh_redis)
    for name in ("adapter:" + uuid.uuid4().hex + "@", "nobody:pw@", ""):
        address = fresh_redis.replace(parts.netloc, name + parts.netloc.rpartition("@")[2])
        stranger = connect_redis(address, "stranger")
        try:
            for command in (*ADAPTER_MAY, *CORE_MAY, ("ACL", "WHOAMI")):
                with pytest.raises(AuthenticationError):
                    await stranger.execute_command(*command)  # type: ignore[no-untyped-call]  # untyped upstream
        finally:
            await stranger.aclose()
    assert await users["adapter"].ping(), "its own password still opens"
