"""Ports that no outgoing connection takes, and a supervisor that tells what its children died of."""

import contextlib
import socket
import sys
from pathlib import Path

from fleet.stack.processes import free_port
from fleet.stack.supervisor import ChildSpec, Supervisor
from tests.support.waiting import until


def test_ports_are_distinct_and_below_what_systems_give_to_outgoing_connections() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == len(ports)
    assert max(ports) < 32_768  # Linux; macOS begins at 49152


def test_a_port_that_somebody_uses_is_passed_over() -> None:
    with socket.socket() as taken:
        following = free_port() + 1
        with contextlib.suppress(OSError):  # in use already: as good
            taken.bind(("127.0.0.1", following))
        assert free_port() != following


async def test_a_child_that_keeps_dying_is_told_with_its_last_words(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    dying = "print('[Errno 98] address already in use'); raise SystemExit(1)"
    await supervisor.start(ChildSpec("api", (sys.executable, "-c", dying)))
    try:
        await until(lambda: supervisor.restarts["api"])
        told = supervisor.restarted()
    finally:
        await supervisor.stop(grace_s=5)
    assert told.startswith("; api was restarted ")
    assert told.endswith("[Errno 98] address already in use")
