"""Several real servers on one machine: a cluster of masters with a replica each, or one master that Sentinels watch."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import RedisError

from fleet.stack.processes import free_port
from fleet.stack.valkey import ADMIN_USER, EmbeddedValkey
from wire.client import connect_redis

MASTERS = 3
NODE_TIMEOUT_MS = 1_500
"""After this long without a sign of life a master is taken for dead."""


class EmbeddedCluster:
    """Three masters with a replica each: without replicas a cluster never gets over a master's death."""

    def __init__(self, data_dir: Path) -> None:
        self._home, self._password = data_dir, _shared_password(data_dir)
        self.nodes = [self._node(number) for number in range(2 * MASTERS)]

    @property
    def admin_url(self) -> str:
        """The administrator's URL, which names every node."""
        hosts = ",".join(f"{host}:{port}" for host, port in (node.address for node in self.nodes))
        return f"redis-cluster://{ADMIN_USER}:{quote(self._password)}@{hosts}/0"

    async def start(self, timeout_s: float = 30) -> None:
        """Start every node, join what never was a cluster, and wait until each master's replica follows it.

        Raises RuntimeError where a node or the cluster does not come up in time.
        """
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in self.nodes))
        clients = [connect_redis(node.admin_url, "fleet-cluster") for node in self.nodes]
        try:
            if not (self._home / "joined").exists():
                await self._join(clients, timeout_s)
                (self._home / "joined").touch()
            await _until(lambda: _whole(clients), timeout_s, "the cluster did not become whole")
        finally:
            for client in clients:
                await client.aclose()

    def stop(self) -> None:
        """Stop every node."""
        for node in self.nodes:
            node.stop()

    def node_at(self, port: int) -> EmbeddedValkey:
        """Return the node that listens there. Raises KeyError."""
        return {node.address[1]: node for node in self.nodes}[port]

    def _node(self, number: int) -> EmbeddedValkey:
        bus = self._home / f"bus-{number}"
        if not bus.exists():
            bus.parent.mkdir(parents=True, exist_ok=True)
            bus.write_text(str(free_port()))
        settings = {
            "cluster-enabled": "yes",
            # Its own, since the usual one is ten thousand above the port, which may be no port at all.
            "cluster-port": bus.read_text(),
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            **_replication(self._password),
        }
        return EmbeddedValkey(self._home / f"node-{number}", settings=settings, password=self._password)

    async def _join(self, clients: list[Redis], timeout_s: float) -> None:
        first, share = self.nodes[0], REDIS_CLUSTER_HASH_SLOTS // MASTERS
        for number, client in enumerate(clients[:MASTERS]):
            last = REDIS_CLUSTER_HASH_SLOTS - 1 if number == MASTERS - 1 else (number + 1) * share - 1
            await _run(client, "CLUSTER", "ADDSLOTSRANGE", number * share, last)
            await _run(client, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for client in clients[1:]:
            bus = (self._home / "bus-0").read_text()
            await _run(client, "CLUSTER", "MEET", *first.address, bus)
        await _until(lambda: _all_know(clients, len(clients)), timeout_s, "the nodes did not meet")
        for master, replica in zip(clients[:MASTERS], clients[MASTERS:], strict=True):
            await _run(replica, "CLUSTER", "REPLICATE", await _run(master, "CLUSTER", "MYID"))


class EmbeddedSentinels:
    """One master with a replica, and three Sentinels that agree when the master is dead."""

    MASTER = "fleet"

    def __init__(self, data_dir: Path) -> None:
        self._home, self._password = data_dir, _shared_password(data_dir)
        replication = _replication(self._password)
        self.master, self.replica = (
            EmbeddedValkey(data_dir / name, settings=replication, password=self._password)
            for name in ("master", "replica")
        )
        self.sentinels: list[EmbeddedValkey] = []

    @property
    def admin_url(self) -> str:
        """The administrator's URL, which names the Sentinels."""
        hosts = ",".join(f"{host}:{port}" for host, port in (each.address for each in self.sentinels))
        login = f"sentinel_username={ADMIN_USER}&sentinel_password={quote(self._password)}"
        return f"redis-sentinel://{ADMIN_USER}:{quote(self._password)}@{hosts}/0?master={self.MASTER}&{login}"

    async def start(self, timeout_s: float = 30) -> None:
        """Start master, replica and Sentinels, and wait until they know each other. Raises RuntimeError."""
        for server in (self.master, self.replica):
            await asyncio.to_thread(server.start)
        replica = connect_redis(self.replica.admin_url, "fleet-sentinels")
        try:
            await replica.replicaof(*self.master.address)
            await _until(lambda: _linked(replica), timeout_s, "the replica did not follow")
        finally:
            await replica.aclose()
        for number in range(3):
            sentinel = EmbeddedValkey(
                self._home / f"sentinel-{number}",
                settings={"sentinel sentinel-user": ADMIN_USER, "sentinel sentinel-pass": self._password},
                password=self._password,
                options=("--sentinel",),
            )
            self.sentinels.append(sentinel)
            await asyncio.to_thread(sentinel.start)
            await self._watch(sentinel)
        await _until(self._agreed, timeout_s, "the Sentinels did not find each other")

    def stop(self) -> None:
        """Stop everything."""
        for server in (*self.sentinels, self.replica, self.master):
            server.stop()

    async def _watch(self, sentinel: EmbeddedValkey) -> None:
        client = connect_redis(sentinel.admin_url, "fleet-sentinels")
        try:
            await _run(client, "SENTINEL", "MONITOR", self.MASTER, *self.master.address, 2)
            for name, value in (
                ("auth-user", ADMIN_USER), ("auth-pass", self._password),
                ("down-after-milliseconds", NODE_TIMEOUT_MS), ("failover-timeout", 4_000),
            ):  # fmt: skip
                await _run(client, "SENTINEL", "SET", self.MASTER, name, value)
        finally:
            await client.aclose()

    async def _agreed(self) -> bool:
        for sentinel in self.sentinels:
            client = connect_redis(sentinel.admin_url, "fleet-sentinels")
            try:
                known: Any = await client.sentinel_master(self.MASTER)
            finally:
                await client.aclose()
            if (int(known["num-other-sentinels"]), int(known["num-slaves"])) != (2, 1):
                return False
        return True


def _replication(password: str) -> dict[str, str]:
    return {
        "masteruser": ADMIN_USER,
        "masterauth": password,
        # By default a master waits five seconds for more replicas before it sends one its copy.
        "repl-diskless-sync-delay": "0",
    }


def _shared_password(home: Path) -> str:
    home.mkdir(parents=True, exist_ok=True)
    path = home / "admin.password"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text()


async def _run(client: Redis, *command: str | int) -> str:
    answer = await client.execute_command(*command)  # type: ignore[no-untyped-call]
    return answer.decode() if isinstance(answer, bytes) else str(answer)


async def _all_know(clients: list[Redis], count: int) -> bool:
    for client in clients:
        lines = (await _run(client, "CLUSTER", "NODES")).splitlines()
        if len(lines) != count or any("handshake" in line for line in lines):
            return False
    return True


async def _whole(clients: list[Redis]) -> bool:
    """Whether every node finds the cluster fit, and every replica is linked to its master."""
    replicas = 0
    for client in clients:
        about = await client.info("replication")
        replicas += about["role"] == "slave"
        if about["role"] == "slave" and about["master_link_status"] != "up":
            return False
        if "cluster_state:ok" not in await _run(client, "CLUSTER", "INFO"):
            return False
    return replicas == len(clients) - MASTERS


async def _linked(replica: Redis) -> bool:
    return bool((await replica.info("replication")).get("master_link_status") == "up")


async def _until(true: Callable[[], Awaitable[bool]], timeout_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if await true():
                return
        except (RedisError, OSError):
            pass
        await asyncio.sleep(0.05)
    raise RuntimeError(f"{otherwise} within {timeout_s} s")
