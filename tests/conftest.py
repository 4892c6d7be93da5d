"""Real servers for every test that asks for one: started once per session, emptied or copied per test."""

import gc
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from functools import cached_property
from typing import Any

import asyncpg
import pytest
from hypothesis import settings
from redis.asyncio import Redis
from xdist.scheduler import LoadFileScheduling

from fleet.stack.processes import allow_open_files
from fleet.stack.provision import RoleUrls, Secrets, create_database, drop_database, provision
from tests.support.databases import Databases, open_databases
from tests.support.servers import postgres_server, redis_7_server, redis_server
from tests.support.warm_sessions import warm_connection
from wire.memory import settle_memory

# What a suite that rails share found wrong is shown as values, as in a test of its own.
pytest.register_assert_rewrite("adapters.testkit")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The administrator's URL of a real PostgreSQL server."""
    with postgres_server() as url:
        yield url


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--redis-7` runs what is chosen on Redis 7 instead of Valkey; `--examples` draws longer where tests draw."""
    parser.addoption("--redis-7", action="store_true", help="use the installed redis-server 7 instead of Valkey")
    parser.addoption(
        "--examples", type=int, default=0, help="examples of each property that takes its number from here"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Draw anew in every run and print how to repeat what failed; as many examples as were asked for.

    Alone where CI decides about a change it draws the same twice: what it refuses is then the change. `./dev fuzz` and
    every run outside draw anew.
    """
    allow_open_files()
    gc.disable()  # collecting tests makes a million objects that live as long as the run: see pytest_collection_finish
    usual, gate = settings.get_profile("default"), bool(os.environ.get("CI"))
    settings.register_profile("fleet", parent=usual, derandomize=gate, deadline=None, print_blob=True)
    settings.load_profile("fleet")
    if examples := config.getoption("--examples"):
        settings.register_profile("long", max_examples=examples, derandomize=False)
        settings.load_profile("long")


def pytest_collection_finish() -> None:
    """Look for garbage only among what the tests make: walking all of the tests and modules took half of collecting."""
    gc.enable()
    settle_memory()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out, by name, what needs a program that is not here."""
    for mark in item.iter_markers("needs"):
        if shutil.which(mark.args[0]) is None:
            pytest.skip(f"{mark.args[0]} is not installed: ./dev test names the package")


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The administrator's URL of a real server; what others left in it stays. See `fresh_redis`, `BOTH_FAMILIES`."""
    usual = "redis-7" if request.config.getoption("--redis-7") else "valkey"
    with redis_7_server() if getattr(request, "param", usual) == "redis-7" else redis_server() as url:
        yield url


@pytest.fixture(scope="session")
def role_secrets() -> Secrets:
    """The passwords of the session's database roles."""
    return Secrets.generate()


def pytest_xdist_auto_num_workers() -> int:
    """Three processes for every two cores, each with servers of its own; one where the environment names the servers.

    Half of the time of a run is waiting: for a process that was killed, for a claim to grow old, for an inquiry.
    """
    if os.environ.get("DATABASE_URL") or os.environ.get("REDIS_URL"):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(6, cores + (cores + 1) // 2)


_ONE_STACK = re.compile(r"\b(stack: Stack|fleet: Fleet)\b")


class _FilesAndOneStack(LoadFileScheduling):  # type: ignore[misc]  # untyped upstream
    """A file at a time, but all of tests/e2e that asks for the stack of tests/e2e/conftest.py in one process.

    Each process would start eleven of its own and keep them busy with their rounds until the run ends.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = super()._split_scope(nodeid)
        return "one stack" if path.startswith("tests/e2e/") and self._asks_for_it(path) else path

    def _asks_for_it(self, path: str) -> bool:
        if path not in self._known:
            self._known[path] = bool(_ONE_STACK.search((self.config.rootpath / path).read_text()))
        return self._known[path]

    @cached_property
    def _known(self) -> dict[str, bool]:
        return {}


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Say which files go to one process together; None leaves the choice of another distribution alone."""
    return _FilesAndOneStack(config, log) if config.getvalue("dist") == "loadfile" else None


_SLOWEST_FIRST = ("e2e", "chaos", "simulation", "conformance")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders whose files take minutes, so that no core waits for one of them at the end."""
    last = len(_SLOWEST_FIRST)
    order = {name: place for place, name in enumerate(_SLOWEST_FIRST)}
    items.sort(key=lambda item: min((order.get(part, last) for part in item.path.parts), default=last))


@pytest.fixture(scope="session")
async def databases(postgres_url: str, role_secrets: Secrets) -> AsyncIterator[Databases]:
    """Migrated databases to lend to tests."""
    name = f"fleet_template_{secrets.token_hex(4)}"
    await provision(await create_database(postgres_url, name), role_secrets)
    opened = await open_databases(postgres_url, role_secrets, name)
    yield opened
    await opened.close()
    await drop_database(postgres_url, name)


@pytest.fixture
async def fresh_database(databases: Databases) -> AsyncIterator[RoleUrls]:
    """A migrated database that is the test's alone, with a URL for each role."""
    name, urls = await databases.lend()
    yield urls
    await databases.take_back(name)


@pytest.fixture
async def fresh_redis(redis_url: str) -> str:
    """The administrator's URL of an emptied Valkey: no keys, no functions, no users of other tests."""
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
        await client.function_flush("SYNC")
        current = await client.acl_whoami()
        for user in await client.acl_users():
            if user not in (current, b"default", "default"):
                await client.acl_deluser(user if isinstance(user, str) else user.decode())
    return redis_url


@pytest.fixture
async def admin_connection(fresh_database: RoleUrls) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the test's own database: it sees every tenant, so it can check what was left."""
    async with warm_connection(fresh_database.admin) as connection:
        yield connection
