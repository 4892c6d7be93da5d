"""What a newcomer types first, as processes of their own: the demo."""

import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from adapters.promptpay.simulator.book import read_book
from fleet.demo.example import rows
from fleet.demo.payments_file import COLUMNS

ROOT = Path(__file__).parents[2]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleet.demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_the_shipped_file_is_what_its_generator_writes() -> None:
    lines = (ROOT / "examples" / "payments.csv").read_text().splitlines()
    assert [line.split(",") for line in lines] == [list(row) for row in rows()]


@pytest.mark.timeout(200)
def test_the_demo_pays_a_file_and_proves_it(tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_text(
        "\n".join(
            (
                ",".join(COLUMNS),
                "a1,alice,mobile,0812345678,10.50,THB,lunch",
                "a2,alice,national_id,1101700230708,20.00,THB,",
                "a3,alice,ewallet,004999000288505,30.00,THB,",
                "a4,alice,mobile,0899990001,40.00,THB,nobody",
                "a5,alice,mobile,0899990002,50.00,THB,the answer is lost",
                "a6,alice,mobile,0812345678,1500000.00,THB,too much",
                "b1,alice,bank_account,004-0123456789,60.00,THB,rent",
                "b2,alice,iban,NL84MOCK0000000003,70.00,THB,its account is closed",
                "r1,alice,phone_bank,79161234567@100000000004,60.00,RUB,lunch",
                "r2,alice,phone_bank,79990000008@ALFABANK,70.01,RUB,declined later",
                "r3,alice,phone_bank,79161234567@999999999999,80.00,RUB,no such bank",
                "i1,bob,topup,a payer,20.00,THB,",
                "i2,bob,topup,a payer,30.00,RUB,",
                "i3,bob,deposit,a payer,40.00,THB,",
                "i4,bob,refund,i1,5.00,THB,not wanted",
                "i5,bob,refund,i2,30.00,RUB,not wanted",
                "i6,bob,refund,i1,20.01,THB,more than is left",
                "i7,bob,refund,nothing,1.00,THB,",
                "i8,bob,refund,i3,10.00,THB,",
                "a1,alice,mobile,0812345678,10.50,THB,lunch",
                "broken,line",
                "a7,alice,mobile,0812345678,0,THB,",
                "c1,alice,bill,099400000000017:INV2026001:CUST7,55.00,THB,light",
                "d1,bob,direct_debit,004-0123456789;Somchai Jaidee,90.00,THB,",
                "d2,bob,direct_debit,somebody,90.00,THB,no account",
                "c2,alice,bill,099999990000101:INV2026001,65.00,THB,no such biller",
            )
        )
    )
    done = demo("--file", str(path), "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["accepted"] == 20
    assert report["settled"] == 14
    assert report["failed"] == {
        "account_closed": 1,
        "biller_not_found": 1,
        "insufficient_funds": 1,
        "payee_account_refused": 1,
        "payee_bank_unknown": 1,
        "payee_not_found": 1,
    }
    assert (report["unresolved"], report["dead_lettered"]) == (0, 0)
    assert [(line["line"], line["code"]) for line in report["refused_lines"]] == [
        (18, "refund_exceeds_original"),
        (19, "original_not_found"),
        (21, "duplicate_reference"),
        (22, "malformed_line"),
        (23, "amount_not_positive"),
        (26, "invalid_field"),
    ]
    assert report["ledger"] == {"balanced": True, "holds_match_pending": True}
    agreed = {"paid_twice": 0, "paid_not_settled": 0, "settled_not_paid": 0}
    by_rail = {
        "bank": {"payments": 2, **agreed},
        "promptpay": {"payments": 6, **agreed},
        "sbp": {"payments": 2, **agreed},
    }
    assert report["provider_book"] == {**agreed, "by_rail": by_rail}
    assert report["money_in"] == {"received": 4, "received_not_credited": 0, "credited_not_received": 0}


def begun(*arguments: str) -> "subprocess.Popen[bytes]":
    """Start the demo and do not wait for it."""
    argv = [sys.executable, "-m", "fleet.demo", *arguments]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.long
@pytest.mark.timeout(200)
def test_ctrl_c_ends_every_child_and_the_same_command_goes_on_without_paying_twice(tmp_path: Path) -> None:
    arguments = ("--count", "40", "--json", "--data", str(tmp_path / "data"))
    with begun(*arguments) as running:
        book = tmp_path / "data" / "promptpay-book.sqlite"
        wait_until(lambda: payments_in(book) > 5, running)
        children = psutil.Process(running.pid).children(recursive=True)
        assert len(children) >= 6
        # Twice, as impatient people do: the second must not cut the drain short.
        for _ in range(2):
            running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, b"")
    assert b"demo: interrupted: " in err
    assert b"the same command goes on where it stopped, and pays nothing twice" in err
    assert b"Traceback" not in err
    assert psutil.wait_procs(children, timeout=5)[1] == []
    done = demo(*arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["accepted"] == 40
    book_of_all = report["provider_book"]
    assert (book_of_all["paid_twice"], book_of_all["paid_not_settled"], book_of_all["settled_not_paid"]) == (0, 0, 0)


@pytest.mark.long
@pytest.mark.timeout(200)
def test_the_demo_says_which_server_ended_and_the_same_command_goes_on(tmp_path: Path) -> None:
    arguments = ("--count", "200", "--json", "--data", str(tmp_path / "data"))
    with begun(*arguments) as running:
        wait_until(lambda: payments_in(tmp_path / "data" / "promptpay-book.sqlite") > 5, running)
        (valkey,) = [
            child for child in psutil.Process(running.pid).children() if "valkey" in Path(child.cmdline()[0]).name
        ]
        valkey.kill()
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err.splitlines()[-1][:60]) == (
        3, b"demo: stack_failed: Valkey ended by itself (exit code -9): s"
    )  # fmt: skip
    done = demo(*arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted"] == 200


def payments_in(book: Path) -> int:
    try:
        return len(list(read_book(book))) if book.exists() else 0
    except sqlite3.OperationalError:
        return 0  # the simulator has made the file and not yet its tables


def wait_until(look: Callable[[], bool], running: "subprocess.Popen[bytes]", within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not look():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("environment", "program", "arguments", "remedy"),
    [
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}, "fleet.demo", [], "demo: stack_failed: "),
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, "fleet.demo", [], "demo: stack_failed: "),
        pytest.param({}, "fleet.demo", ["--data", "/dev/null/x"], "demo: stack_failed: ", marks=pytest.mark.long),
        ({}, "fleet.stack", ["--data", "/dev/null/x"], "up: stack_failed: "),
        (
            {},
            "fleet.stack",
            ["--port", "TAKEN"],
            "up: stack_failed: port TAKEN cannot be had (Address already in use): choose another by --port,",
        ),
        (
            {},
            "fleet.stack",
            ["--port", "0", "--console-port", "TAKEN"],
            "up: stack_failed: port TAKEN cannot be had (Address already in use): choose another by --console-port,",
        ),
        ({}, "fleet.stack", ["--data", "."], "up: stack_failed: . is in use by another stack: "),
    ],
)
def test_a_stack_that_cannot_start_is_one_line_and_exit_3(
    environment: dict[str, str], program: str, arguments: list[str], remedy: str, tmp_path: Path
) -> None:
    announced = tmp_path / ".fleet" / "up" / "stack.json"
    announced.parent.mkdir(parents=True)
    announced.symlink_to(tmp_path / "stack.json")
    with socket.create_server(("127.0.0.1", 0)) as taken, (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", program, *[port if word == "TAKEN" else word for word in arguments]],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith(remedy.replace("TAKEN", port))
    assert done.stderr.count("\n") == 1, done.stderr
    assert announced.is_symlink(), "one that runs is not found any more"


def up_in(folder: Path, *, stderr: int | None = None) -> "subprocess.Popen[str]":
    """Start the stack on ports of its own, its data in a folder."""
    argv = [sys.executable, "-m", "fleet.stack", "--port", "0", "--console-port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(argv, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)


def announced_by(running: "subprocess.Popen[str]") -> list[str]:
    """Return what the stack prints until it works."""
    assert running.stdout is not None
    return list(iter(running.stdout.readline, "Ctrl-C stops everything.\n"))


@pytest.mark.timeout(150)
def test_up_says_which_server_ended_and_ends_everything(tmp_path: Path) -> None:
    with up_in(tmp_path, stderr=subprocess.PIPE) as running:
        try:
            announced_by(running)
            children = psutil.Process(running.pid).children()
            (postgres,) = [child for child in children if child.cmdline()[0].endswith("bin/postgres")]
            postgres.kill()
            _, said = running.communicate(timeout=120)
        finally:
            running.kill()
    assert (running.returncode, said.count("\n")) == (3, 1), said
    assert said.startswith("up: stack_failed: PostgreSQL ended by itself (exit code -9): see its log in ")
    assert psutil.wait_procs(children, timeout=5)[1] == []


@pytest.mark.timeout(150)
def test_up_prints_every_address_and_each_of_them_answers(tmp_path: Path) -> None:
    with up_in(tmp_path) as running:
        assert running.stdout is not None
        lines = announced_by(running)
        try:
            urls = {line.split()[-1]: line.split()[1] for line in lines if line.startswith("metrics")}
            adapters = {"(bank-1)", "(promptpay-1)", "(promptpay-2)", "(sbp-1)"}
            assert set(urls) == {"(core-api)", "(core-worker)"} | adapters
            for url in urls.values():
                assert "fleet_" in httpx.get(url).raise_for_status().text
            (api,) = [line.split()[1] for line in lines if line.startswith("API")]
            assert httpx.get(f"{api}/readyz").is_success
            (openapi,) = [line.split("OpenAPI: ")[1].strip(")\n") for line in lines if "OpenAPI" in line]
            assert httpx.get(openapi).is_success
            assert (tmp_path / ".fleet" / "up" / "stack.json").exists()
        finally:
            running.send_signal(signal.SIGTERM)
        assert running.stdout.read() == "draining …\nstopped\n"
        assert running.wait(30) == 0
