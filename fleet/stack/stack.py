"""The whole system on one machine: real servers, then every process of the fleet under one supervisor."""

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import asyncpg
import httpx
from redis.exceptions import RedisError

from fleet.proof import BookPayment
from fleet.stack.cluster import EmbeddedCluster, EmbeddedSentinels
from fleet.stack.console import console_process, first_admin
from fleet.stack.installation import Installation, install
from fleet.stack.postgres import EmbeddedPostgres, room_for_pages
from fleet.stack.processes import allow_open_files, free_port
from fleet.stack.profile import SCALED, Profile
from fleet.stack.provision import RoleUrls, Secrets, create_database, provision
from fleet.stack.rails import Place, Provider, rail_of
from fleet.stack.supervisor import ChildSpec, Supervisor
from fleet.stack.valkey import EmbeddedValkey
from schemas.streams import shards_of
from wire.acl import apply_acl, apply_core_acl
from wire.client import StreamServers

_READY_WITHIN_S = 60
_DRAIN_S, _DRAIN_WITHOUT_A_SERVER_S = 20, 2
_CORE_USER = "fleet-core"
API, WORKER = "core-api", "core-worker"
RedisKind = Literal["single", "cluster", "sentinel"]
Done = TypeVar("Done")
REDIS_KINDS: Final[tuple[RedisKind, ...]] = ("single", "cluster", "sentinel")


class StackError(RuntimeError):
    """The stack did not come up; the text says which part and where its log is."""


@dataclass(frozen=True, slots=True)
class StackPlan:
    """What to run. `rails` says how many adapters each rail gets."""

    data_dir: Path
    profile: Profile = SCALED
    rails: Mapping[str, int] = field(default_factory=lambda: {"promptpay": 2})
    public_port: int = 0
    console_port: int | None = None
    """None: no console; 0: on any free port."""
    core_env: Mapping[str, str] = field(default_factory=dict)
    adapter_env: Mapping[str, str] = field(default_factory=dict)
    failpoints: bool = False
    provider_latency_ms: int = 0
    database_name: str = "fleet"
    shards: Mapping[str, int] = field(default_factory=dict)
    """Rails whose jobs are spread over more than one stream."""
    postgres: Mapping[str, str] = field(default_factory=dict)
    """Settings of the embedded server, beside or instead of its usual ones."""
    redis: RedisKind = "single"
    """What carries the streams: one server, a cluster of six, or a pair that Sentinels watch."""


@dataclass(frozen=True, slots=True)
class StackInfo:
    """Addresses and credentials of a running stack; written to `stack.json` for the `fleet` command."""

    public_url: str
    internal_url: str
    key_id: str
    key_secret: str
    database_url: str
    redis_url: str
    master_key: str
    operator_key_id: str = ""
    """Of the person on call."""
    operator_key_secret: str = ""
    console_url: str = ""
    console_password: str = ""
    """Of the first admin, where it was made here."""
    providers: Mapping[str, str] = field(default_factory=dict)
    """Rail -> where what plays its provider answers."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Process -> where its counters are."""


class Stack:
    """A running stack. Made by `running`."""

    def __init__(self, plan: StackPlan) -> None:
        self.plan = plan
        # Children change directory and users may pass a relative path.
        self.home = plan.data_dir.resolve()
        self.supervisor = Supervisor(self.home / "logs")
        settings = {"shared_buffers": room_for_pages(), **plan.postgres}
        theirs = os.environ.get("DATABASE_URL")
        self.postgres = None if theirs else EmbeddedPostgres(self.home / "postgres", **settings)
        own = not os.environ.get("REDIS_URL")
        self.valkey = EmbeddedValkey(self.home / "valkey") if own and plan.redis == "single" else None
        self.cluster = EmbeddedCluster(self.home / "cluster") if own and plan.redis == "cluster" else None
        self.sentinels = EmbeddedSentinels(self.home / "sentinels") if own and plan.redis == "sentinel" else None
        self.failpoints_dir = self.home / "failpoints"
        self._info: StackInfo | None = None
        self._places: list[Place] = []

    @property
    def info(self) -> StackInfo:
        """Return the addresses. Raises StackError before the stack is up."""
        if self._info is None:
            raise StackError("the stack is not up")
        return self._info

    @property
    def places(self) -> list[Place]:
        """Where what plays the rails' providers runs."""
        return list(self._places)

    async def booked(self) -> list[BookPayment]:
        """Return what the providers' own books show as paid, rail by rail."""
        return [payment for provider, place in self._providers() for payment in await provider.read_book(place)]

    async def received(self) -> dict[str, list[BookPayment]]:
        """Return what the providers' own books show as paid to us, of each rail whose provider keeps such a book."""
        return {
            place.rail: await provider.read_received(place)
            for provider, place in self._providers()
            if provider.read_received is not None
        }

    async def pay_in(self, rail: str, reference: str, amount_minor: int) -> None:
        """Play a payer: pay a collection at its provider. Raises LookupError for a rail that nobody can pay at."""
        for provider, place in self._providers():
            if place.rail == rail and provider.pay_in is not None:
                await provider.pay_in(place, reference, amount_minor)
                return
        raise LookupError(f"nobody can pay in at {rail}")

    async def start(self) -> None:
        """Start servers, bring schema, roles, users and keys up to date, start every process, wait until ready.

        Raises StackError with what did not come up and why.
        """
        try:
            await self._start()
        except StackError:
            raise
        except (OSError, RuntimeError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisError) as error:
            raise StackError(f"{type(error).__name__}: {error}") from error

    async def _start(self) -> None:
        if self.plan.public_port:
            _require_free(self.plan.public_port, "--port")
        if self.plan.console_port:
            _require_free(self.plan.console_port, "--console-port")
        kept = Secrets.load_or_create(self.home / "secrets.json")
        admin_url, redis_url = await self._start_servers()
        urls, installation = await self._install(await create_database(admin_url, self.plan.database_name), kept)
        await self._users(redis_url, kept)
        self._places = [
            Place(self.home, rail, free_port(), free_port(), installation.rails[rail].secret, self.plan.profile,
                  self.plan.provider_latency_ms)
            for rail in self.plan.rails
        ]  # fmt: skip
        public, internal = self.plan.public_port or free_port(), free_port()
        console, password = None, ""
        if self.plan.console_port is not None:
            console = self.plan.console_port or free_port()
            password = await first_admin(self.home / "console.json", urls)
        self._info = StackInfo(
            public_url=f"http://127.0.0.1:{public}",
            internal_url=f"http://127.0.0.1:{internal}",
            key_id=installation.client.id,
            key_secret=installation.client.secret,
            operator_key_id=installation.operator.id,
            operator_key_secret=installation.operator.secret,
            database_url=urls.worker,
            redis_url=redis_url,
            master_key=kept.master_key,
            console_url="" if console is None else f"http://127.0.0.1:{console}",
            console_password=password,
            providers={place.rail: place.url for _, place in self._providers()},
            metrics={
                API: f"http://127.0.0.1:{internal}/metrics",
                **{name: f"http://127.0.0.1:{free_port()}/metrics" for name in (WORKER, *self._adapter_names())},
            },
        )
        self._write_info()
        for spec in (*self._core(urls, kept, public, internal), *self._adapters(installation, kept)):
            await self.supervisor.start(spec)
        for provider, place in self._providers():
            if provider.prepare is not None:
                await provider.prepare(place.url)
        await self._wait_until_ready()

    async def until_a_server_ends(self) -> None:
        """Wait while the servers run: each process starts again by itself, a server does not. Raises StackError.

        A cluster and Sentinels do without one of theirs, and servers of others are theirs to watch.
        """
        while True:
            if lost := self._lost_server():
                raise StackError(lost)
            await asyncio.sleep(0.5)

    async def unless_a_server_ends(self, work: Coroutine[Any, Any, Done]) -> Done:
        """Return what the work returns; where a server ends before, it is cancelled. Raises StackError."""
        tasks = working, _ = asyncio.create_task(work), asyncio.create_task(self.until_a_server_ends())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # What the work failed of is then the smaller news.
            if lost := self._lost_server():
                raise StackError(lost)
            return await working
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _lost_server(self) -> str:
        for name, server in (("PostgreSQL", self.postgres), ("Valkey", self.valkey)):
            if server is not None and (code := server.exit_code()) is not None:
                return f"{name} ended by itself (exit code {code}): see its log in {self.home}"
        return ""

    async def stop(self) -> None:
        """Drain every process, then stop the servers."""
        # Without one of its servers nobody can finish anything.
        grace_s = _DRAIN_WITHOUT_A_SERVER_S if self._lost_server() else _DRAIN_S
        # An adapter finishes its calls with the provider and the core's help; the workers take what it published.
        await self.supervisor.stop(self._adapter_names(), [WORKER], grace_s=grace_s)
        for server in (self.valkey, self.cluster, self.sentinels, self.postgres):
            if server is not None:
                await asyncio.to_thread(server.stop)

    def arm(self, failpoint: str, action: str = "kill") -> None:
        """Make the next process that reaches `failpoint` kill or stop itself."""
        self.failpoints_dir.mkdir(exist_ok=True)
        (self.failpoints_dir / failpoint).write_text(action)

    async def _install(self, admin_url: str, kept: Secrets) -> tuple[RoleUrls, Installation]:
        urls = await provision(admin_url, kept)
        return urls, await install(self.home / "keys.json", urls, kept.master_key, list(self.plan.rails))

    async def _start_servers(self) -> tuple[str, str]:
        if self.postgres is not None:
            self.postgres.start()
        if self.valkey is not None:
            self.valkey.start()
        admin_url = self.postgres.admin_url if self.postgres is not None else os.environ["DATABASE_URL"]
        for several in (self.cluster, self.sentinels):
            if several is not None:
                await several.start()
                return admin_url, several.admin_url
        return admin_url, self.valkey.local_url if self.valkey is not None else os.environ["REDIS_URL"]

    async def _users(self, redis_url: str, kept: Secrets) -> None:
        servers = StreamServers(redis_url, "fleet-stack")
        # Servers do not tell each other of users: a replica that takes over must know them.
        for client in await servers.each():
            try:
                await apply_core_acl(client, _CORE_USER, kept.core_redis_password, self._shard_names())
                for rail in self.plan.rails:
                    await apply_acl(client, _adapter_user(rail), kept.adapter_redis_password, rail, self._shards(rail))
                if not os.environ.get("REDIS_URL"):
                    await client.execute_command("ACL", "SAVE")  # type: ignore[no-untyped-call]  # untyped upstream
            finally:
                await client.aclose()

    def _core(self, urls: RoleUrls, kept: Secrets, public: int, internal: int) -> list[ChildSpec]:
        env = {
            "DATABASE_URL": urls.app,
            "DATABASE_WORKER_URL": urls.worker,
            "DATABASE_DIRECT_URL": urls.worker,
            "REDIS_URL": _as_user(self.info.redis_url, _CORE_USER, kept.core_redis_password),
            "FLEET_MASTER_KEY": kept.master_key,
            "FLEET_PUBLIC_PORT": str(public),
            "FLEET_INTERNAL_PORT": str(internal),
            "FLEET_RAILS": ",".join(self.plan.rails),
            "FLEET_RAIL_SHARDS": ",".join(f"{rail}={count}" for rail, count in self.plan.shards.items()),
            # One machine is a developer's: its own receivers may be told, by http, and briefly waited for.
            "FLEET_WEBHOOKS_TO_PRIVATE": "true",
            "FLEET_WEBHOOK_CALL_S": "2",
            **self.plan.profile.core_env(),
            **self._failpoints_env(),
            **self.plan.core_env,
        }
        python = sys.executable
        console = urlsplit(self.info.console_url).port
        return [
            *([] if console is None else [console_process(env, console)]),
            ChildSpec(API, (python, "-m", "core", "api"), env),
            ChildSpec(
                WORKER,
                (python, "-m", "core", "relay", "settler", "resolver"),
                {**env, "FLEET_METRICS_PORT": self._metrics_port(WORKER)},
            ),
        ]

    def _shards(self, rail: str) -> int:
        return self.plan.shards.get(rail, 1)

    def _shard_names(self) -> list[str]:
        return [shard for rail in self.plan.rails for shard in shards_of(rail, self._shards(rail))]

    def _adapter_names(self) -> list[str]:
        return [f"{rail}-{number}" for rail, count in self.plan.rails.items() for number in range(1, count + 1)]

    def _metrics_port(self, name: str) -> str:
        return str(urlsplit(self.info.metrics[name]).port)

    def _adapters(self, installation: Installation, kept: Secrets) -> list[ChildSpec]:
        specs = [provider.process(place) for provider, place in self._providers()]
        rail_env = {place.rail: provider.adapter_env(place) for provider, place in self._providers()}
        callback_port = {place.rail: place.callback_port for place in self._places}
        for rail, count in self.plan.rails.items():
            key = installation.rails[rail]
            for number in range(1, count + 1):
                env = {
                    "REDIS_URL": _as_user(self.info.redis_url, _adapter_user(rail), kept.adapter_redis_password),
                    "CORE_INTERNAL_URL": self.info.internal_url,
                    "CORE_KEY_ID": key.id,
                    "CORE_KEY_SECRET": key.secret,
                    "CONSUMER_NAME": f"{rail}-{number}",
                    "FLEET_SHARDS": str(self._shards(rail)),
                    "FLEET_HEALTH_PORT": self._metrics_port(f"{rail}-{number}"),
                    **({"FLEET_CALLBACK_PORT": str(callback_port[rail])} if number == 1 else {}),
                    **self.plan.profile.adapter_env(),
                    **rail_env.get(rail, {}),
                    **self._failpoints_env(),
                    **self.plan.adapter_env,
                }
                specs.append(ChildSpec(f"{rail}-{number}", (sys.executable, "-m", f"adapters.{rail}"), env))
        return specs

    def _providers(self) -> list[tuple[Provider, Place]]:
        return [(played, place) for place in self._places if (played := rail_of(place.rail).played_by) is not None]

    def _failpoints_env(self) -> dict[str, str]:
        return {"FLEET_FAILPOINTS_DIR": str(self.failpoints_dir)} if self.plan.failpoints else {}

    def _write_info(self) -> None:
        path = self.home / "stack.json"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self.info), file, indent=1)

    async def _wait_until_ready(self) -> None:
        """Ready is: the API answers, and every rail's adapter has registered."""
        deadline = time.monotonic() + _READY_WITHIN_S
        missing, last = "the API", "it never answered"
        async with httpx.AsyncClient(timeout=2) as http:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    answer = await http.get(f"{self.info.public_url}/readyz")
                    missing, last = "the API", answer.text
                    if answer.is_success:
                        missing = await self._unregistered()
                        if not missing:
                            return
                await asyncio.sleep(0.1)
        raise StackError(
            f"{missing} was not ready within {_READY_WITHIN_S} s (the API last said: {last})"
            f"{self.supervisor.restarted()}: see the logs in {self.home / 'logs'}"
        )

    async def _unregistered(self) -> str:
        connection = await asyncpg.connect(self.info.database_url)
        try:
            rows = await connection.fetch("SELECT DISTINCT rail FROM fleet.rail_registrations")
        finally:
            await connection.close()
        return ", ".join(sorted(set(self.plan.rails) - {row["rail"] for row in rows}))


@asynccontextmanager
async def running(plan: StackPlan) -> AsyncIterator[Stack]:
    """Run a stack for the length of the block.

    Raises StackError where it does not come up, OSError where its folder cannot be written.
    """
    allow_open_files()
    with _alone_in(plan.data_dir):
        stack = Stack(plan)
        try:
            await stack.start()
            yield stack
        finally:
            await stack.stop()


@contextmanager
def _alone_in(home: Path) -> Iterator[None]:
    """Hold a stack's folder, also against a stack of another process. Raises StackError where another runs there."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(f"{home} is in use by another stack: stop it, or name another folder by --data") from error
        yield


def _require_free(port: int, option: str) -> None:
    """Raise StackError where somebody listens: their answers would pass for ours. `option` names another."""
    with socket.socket() as probe:
        # What a stack that just ended left in TIME_WAIT does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StackError(
                f"port {port} cannot be had ({error.strerror}): choose another by {option}, 0 any"
            ) from error


def _adapter_user(rail: str) -> str:
    return f"adapter-{rail}"


def _as_user(redis_url: str, user: str, password: str) -> str:
    scheme, _, rest = redis_url.partition("://")
    return f"{scheme}://{user}:{password}@{rest.rpartition('@')[2]}"
