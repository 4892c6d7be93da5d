"""`./dev observe`: a real Prometheus watches the embedded system through good and bad scenarios.

Every panel of every dashboard must show something, every alert that a scenario causes must fire and clear again, and on
the clean run none may fire. Windows and patience of the rules are scaled down; their names and queries are the shipped
ones. Needs Debian's prometheus (apt-get install -y prometheus). Exit code 1 names what was empty, silent or loud.
"""

import argparse
import asyncio
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from shutil import which
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import yaml
from redis.exceptions import RedisError

from fleet.client import FleetClient, FleetError
from fleet.stack.processes import die_with_parent, free_port
from fleet.stack.stack import Stack, StackPlan, running
from tools.alerts import ALERTS, rules
from tools.dashboard_panels import DASHBOARDS, Board, bare
from tools.observed import SCENARIOS
from tools.observed_desk import second_person
from tools.observed_world import Scenario, World, patience_s, pay, pay_roubles, wallet_with

_RAILS = {"promptpay": 2, "sbp": 1, "bank": 1}
_SHOWN = ("promptpay", "sbp")
"""The rails whose dashboard must show something: providers that answer at once."""
_EVER = "[1h:2s]"
_WITHIN_S = 120.0
_PANELS_WITHIN_S = 30.0
_SHORT = {
    "[2m]": "[10s]",
    "[5m]": "[20s]",
    "[10m]": "[20s]",
    "[15m]": "[20s]",
    "[30m]": "[30s]",
    "[1h]": "[40s]",
    "[6h]": "[50s]",
    "[3d]": "[60s]",
}
# A loop that has nothing to do shows a sign of life every minute.
_SOONER = (("> 60", "> 12"), ("> 120", "> 8"), ("> 300", "> 75"), ("> 14400", "> 15"), ("> 172800", "> 30"))
_PLAN: Mapping[str, str] = {
    "FLEET_OBSERVE_EVERY_S": "1",
    "FLEET_BALANCE_EVERY_S": "2",
    "FLEET_BACKLOG_HIGH": "40",
    "FLEET_BACKLOG_LOW": "20",
    "FLEET_COMPLETER_GRACE_S": "10",
    "FLEET_COMPLETER_EVERY_S": "1",
    "FLEET_BOOKS_EVERY_S": "4",
    # However long the provider was away, it is asked again soon after it has come back.
    "FLEET_INQUIRY_LONGEST_S": "8",
}
_ADAPTERS: Mapping[str, str] = {
    "FLEET_REGISTERS_EVERY_S": "2",
    # More than ever waits while the core keeps it: no more than the gate lets into a stream, and inquiries.
    "FLEET_EVIDENCE_WAITING_MOST": "80",
    # As shipped: on a machine that is busy, failures come too far apart for the profile's window.
    "FLEET_BREAKER_WINDOW_S": "10",
}


_CANNOT = (
    OSError,
    RuntimeError,
    FleetError,
    httpx.HTTPError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    RedisError,
    sqlite3.Error,
)
"""What the servers of a scenario say where a step of it cannot be done."""


def _scaled() -> str:
    document: dict[str, Any] = yaml.safe_load(rules())
    for rule in (rule for group in document["groups"] for rule in group["rules"]):
        for long, short in _SHORT.items():
            rule["expr"] = rule["expr"].replace(long, short)
        for long, short in _SOONER:
            rule["expr"] = re.sub(re.escape(long) + r"\b", short, rule["expr"])
        if "alert" in rule:
            rule["for"] = "2s"
    text: str = yaml.safe_dump(document)
    return text


class Prometheus:
    """A running server and what it says."""

    def __init__(self, port: int) -> None:
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=10)

    async def is_ready(self) -> bool:
        """Return whether it answers and has scraped every target once."""
        try:
            found = await self.query("up")
        except httpx.HTTPError:
            return False
        return len(found) > 0 and all(value == 1 for value in found)

    async def query(self, expression: str) -> list[float]:
        """Return the values of an instant query. Raises httpx.HTTPError."""
        answer = (await self._http.get("/query", params={"query": expression})).raise_for_status().json()
        data = answer["data"]
        values = [data["result"]] if data["resultType"] == "scalar" else [each["value"] for each in data["result"]]
        return [float(value) for _, value in values]

    async def firing(self) -> set[str]:
        """Return the names of the alerts that fire now. Raises httpx.HTTPError."""
        alerts = (await self._http.get("/alerts")).raise_for_status().json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


@asynccontextmanager
async def _prometheus(stack: Stack, home: Path) -> AsyncIterator[Prometheus]:
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [urlsplit(url).netloc]}]}
        for name, url in stack.info.metrics.items()
    ]
    (home / "rules.yml").write_text(_scaled())
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(home / "rules.yml")],
        "scrape_configs": jobs,
    }
    (home / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    with (home / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220  it returns at once
            [
                "prometheus",
                f"--config.file={home / 'prometheus.yml'}",
                f"--storage.tsdb.path={home / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509  one prctl call, resolved before the fork
        )
    server = Prometheus(port)
    try:
        async with asyncio.timeout(patience_s(_WITHIN_S)):
            while not await server.is_ready():  # noqa: ASYNC110  bounded by the time-out
                await asyncio.sleep(0.5)
        yield server
    finally:
        await server.aclose()
        process.terminate()
        process.wait(20)


async def _clean_run(world: World, server: Prometheus) -> list[str]:
    await pay(world, ["0812345678"] * 20 + ["0899990001", "0899990008", "0899990007"])
    await pay_roubles(world)
    await asyncio.sleep(8)
    return [f"{name} fires on the clean run" for name in sorted(await server.firing())]


async def _drive(scenario: Scenario, world: World, server: Prometheus) -> list[str]:
    """Begin a scenario, wait for its alerts, end it, wait until they are gone; what did not come or did not go."""
    began = time.monotonic()
    faults = await _done(scenario.begin, world, f"it did not begin: {scenario.says}")
    silent: set[str] = set()
    if not faults:
        going_on = asyncio.create_task(_go_on(scenario, world))
        silent = await _wait(server, scenario.alerts, firing=True)
        going_on.cancel()
        await asyncio.gather(going_on, return_exceptions=True)
    faults += await _done(scenario.end, world, f"it did not end: {scenario.says}")
    loud = await _wait(server, scenario.alerts, firing=False)
    faults += [f"{name} did not fire: {scenario.says}" for name in sorted(silent)]
    faults += [f"{name} did not clear: {scenario.says}" for name in sorted(loud)]
    caused = ", ".join(scenario.alerts) or "for the panels"
    _say(f"{'FAILED' if faults else 'ok':7} {scenario.says}: {caused} ({time.monotonic() - began:.0f} s)")
    for fault in faults:
        _say(f"        {fault}")
    return faults


async def _done(step: Callable[[World], Awaitable[None]], world: World, otherwise: str) -> list[str]:
    """Do a step of a scenario; where it cannot be done, say so, and let the other scenarios be seen."""
    try:
        await step(world)
    except _CANNOT as error:
        return [f"{otherwise} ({type(error).__name__}: {error})"]
    return []


async def _go_on(scenario: Scenario, world: World) -> None:
    while scenario.meanwhile is not None:
        # One that was refused, or came to nobody, is no end of those that follow.
        with suppress(*_CANNOT):
            await scenario.meanwhile(world)
        await asyncio.sleep(1)


async def _wait(server: Prometheus, names: Iterable[str], *, firing: bool) -> set[str]:
    """Wait until each of the names has fired, or none of them does; return those that do not obey."""
    left = set(names)
    try:
        async with asyncio.timeout(patience_s(_WITHIN_S)):
            while left:
                with suppress(httpx.HTTPError):
                    now = await server.firing()
                    # One alert may be over before another begins; that all are over has to be so at once.
                    left = left - now if firing else set(names) & now
                await asyncio.sleep(0.5)
    except TimeoutError:
        return left
    return set()


async def _empty_in_the_end(server: Prometheus) -> list[str]:
    """Wait until every panel shows something: a payment has to end and to be scraped; return what stays empty."""
    empty = await _panels(server)
    with suppress(TimeoutError):
        async with asyncio.timeout(patience_s(_PANELS_WITHIN_S)):
            while empty:
                await asyncio.sleep(1)
                with suppress(httpx.HTTPError):
                    empty = await _panels(server)
    return empty


async def _panels(server: Prometheus) -> list[str]:
    """Evaluate every query of every panel; those that show nothing.

    A query that says 0 where nothing was counted can never be empty: without that it must have shown something at some
    time of the run, in which its scenario was.
    """
    faults = []
    for board in DASHBOARDS:
        for panel in (panel for row in board.rows for panel in row.panels):
            for query, rail in ((query, rail) for query, _ in panel.queries for rail in rails_of(board)):
                expression = bare(query).replace("$rail", rail)
                ever = expression if bare(query) == query else f"max_over_time({expression}{_EVER})"
                values = await server.query(ever)
                if all(value != value for value in values):
                    faults.append(f"the panel {board.title}: {panel.title} is empty: {expression}")
    return faults


def rails_of(board: Board) -> Sequence[str]:
    """Return the rails that a dashboard is evaluated for; one empty name where it has no choice of them."""
    return _SHOWN if board.by_rail else ("",)


async def observe(names: Sequence[str] = ()) -> list[str]:
    """Run everything, or the scenarios of these alerts alone; return what is wrong, one line each."""
    chosen = [each for each in SCENARIOS if not names or set(names) & set(each.alerts)]
    with tempfile.TemporaryDirectory(prefix="psp-observe-") as folder:
        home = Path(folder)
        plan = StackPlan(home / "stack", rails=_RAILS, core_env=_PLAN, adapter_env=_ADAPTERS, provider_latency_ms=5)
        async with running(plan) as stack:
            info = stack.info
            async with (
                FleetClient(info.public_url, info.key_id, info.key_secret) as client,
                _prometheus(stack, home) as server,
            ):
                roubles = await wallet_with(client, 10_000_000, "RUB")
                second = await second_person(plan.data_dir)
                world = World(stack, client, await wallet_with(client, 10_000_000), roubles, second)
                faults = await _clean_run(world, server)
                _say(f"{'ok' if not faults else 'FAILED':7} the clean run: no alert fires")
                for fault in faults:
                    _say(f"        {fault}")
                for scenario in chosen:
                    faults += await _drive(scenario, world, server)
                if names:
                    return faults
                await pay(world, ["0812345678"] * 10)
                await pay_roubles(world)
                empty = await _empty_in_the_end(server)
                if not empty:
                    _say(f"ok      each of {sum(_sizes())} panels shows something")
                for fault in empty:
                    _say(f"FAILED  {fault}")
                return faults + empty


def _sizes() -> list[int]:
    return [len(row.panels) for board in DASHBOARDS for row in board.rows]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Observe. Exit code 0: all as it should be; 1: what was empty, silent or loud; 2: wrong usage, no Prometheus."""
    parser = argparse.ArgumentParser(prog="./dev observe", description=__doc__)
    parser.add_argument("alerts", nargs="*", choices=[*(each.name for each in ALERTS), []], metavar="ALERT",
                        help="only the scenarios of these alerts, and no panels")  # fmt: skip
    names: list[str] = parser.parse_args().alerts
    if which("prometheus") is None:
        sys.stderr.write("observe: Prometheus is not installed: apt-get install -y prometheus\n")
        return 2
    faults = asyncio.run(observe(names))
    driven = {name for scenario in SCENARIOS for name in scenario.alerts}
    left = {alert.name for alert in ALERTS} - driven
    faults += [f"{name} fires in no scenario: add one" for name in sorted(left)]
    for fault in faults:
        sys.stderr.write(f"observe: {fault}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
