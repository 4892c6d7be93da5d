"""The wire speaks to two families of servers: everything here runs on Valkey and on Redis 7 (Debian's redis-server)."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.stack.valkey import EmbeddedValkey
from tests.support.servers import redis_server, scratch_directory


@pytest.fixture(scope="session", params=["valkey", "redis-7"])
def redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The administrator's URL of a server of one family; `./dev test` names the missing one and its apt line."""
    if request.param == "valkey" or os.environ.get("REDIS_URL"):
        with redis_server() as url:
            yield url
        return
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed: apt-get install -y redis-server")
    with scratch_directory() as home:
        server = EmbeddedValkey(home, Path(binary))
        server.start()
        try:
            yield server.admin_url
        finally:
            server.stop()
