"""Ports that no outgoing connection takes, limits of the system, a supervisor that tells what its children died of."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fleet.stack.processes import SocketHome, die_with_parent, free_port
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


@pytest.mark.parametrize(("soft", "hard", "after"), [(256, 1_000, 1_000), (256, 10_000, 4_096), (8_000, 10_000, 8_000)])
def test_a_process_that_may_open_few_files_raises_that_as_far_as_it_may(soft: int, hard: int, after: int) -> None:
    code = (
        f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from fleet.stack.processes import allow_open_files; allow_open_files()\n"
        "print(r.getrlimit(r.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == after


def test_children_are_tied_to_their_parent_where_the_system_can_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert die_with_parent() is None


def test_a_socket_whose_path_macos_would_refuse_gets_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As long as macOS's own folder for temporary files, and as what the demo makes in it.
    temporary = Path("/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T")
    shortest = SocketHome(temporary / "psp-fleet-demo-abcdefgh" / "postgres")
    shortest.make()
    assert len(os.fsencode(shortest.path / ".s.PGSQL.65535")) < 104
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    long = SocketHome(temporary / "data of a shop with a long name" / "postgres")
    long.make()
    assert long.path.parent == tmp_path


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
