"""Scenarios of `./dev observe` at the borders: adapters with their streams, their provider and the core."""

import asyncio
import signal
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4
from zoneinfo import ZoneInfo

import httpx

from fleet.client import FleetClient
from fleet.stack.bank import OWN_ACCOUNT_ID
from fleet.stack.stack import API, WORKER
from schemas.envelope import ENVELOPE_VERSION, Envelope
from schemas.jobs import JOB_TYPE
from schemas.registers import DayAsked, RegisterFileList, RegisterRunList, RegistersAsked, RegisterState
from schemas.streams import jobs_stream
from tools.observed_desk import close_what_is_open
from tools.observed_world import (
    Scenario,
    World,
    adapters_of,
    letters_of,
    nothing,
    pay,
    planted,
    redis_of,
    send_signal,
    until,
    value,
)

_RAIL: Final = "promptpay"
_BOTH: Final = (_RAIL, "sbp")
_SOME: Final = ("0812345678",) * 10


async def _counted(world: World, adapters: list[str], series: str) -> float:
    """Return the sum of a counter over adapters, as they show it."""
    total = 0.0
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        for name in adapters:
            shown = (await http.get(world.stack.info.metrics[name])).raise_for_status().text
            lines = (line for line in shown.splitlines() if line.startswith(series))
            total += sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    return total


async def _lose_an_entry(world: World) -> None:
    """Delete an entry that nobody has read, and wait until the sweeper has put its job back."""
    adapters, stream = adapters_of(world, _RAIL), jobs_stream(_RAIL)
    send_signal(world, adapters, signal.SIGSTOP)
    try:
        async with redis_of(world) as client:

            async def lag() -> bool:
                # The server still gives what comes next to the reads that the adapters were waiting in.
                await pay(world, _SOME[:3])
                await asyncio.sleep(1)
                return any(group["lag"] for group in await client.xinfo_groups(stream))

            await until(lag, "entry that nobody has read")
            ((entry, _),) = await client.xrevrange(stream, count=1)
            await client.xdel(stream, entry)
    finally:
        send_signal(world, adapters, signal.SIGCONT)


async def _is_put_back(world: World) -> None:
    async def put_back() -> bool:
        return await _counted(world, [WORKER], "fleet_jobs_swept_total{") > 0

    await until(put_back, "job that was put back")


async def _write_jobs_that_nobody_reads(world: World) -> None:
    """Add a job in tomorrow's version that is old enough to be parked, and one that is no job in any."""
    tomorrow = Envelope(id=str(uuid4()), type=JOB_TYPE, body="{}", v=ENVELOPE_VERSION + 1)
    poison = Envelope(id=str(uuid4()), type=JOB_TYPE, body="{}")
    async with redis_of(world) as client:
        # Nothing was ever paid by bank here: its stream is empty, and takes an entry of an hour ago.
        await client.xadd(jobs_stream("bank"), tomorrow.to_fields(), id=f"{int(time.time() - 3600) * 1000}-0")
        for rail in _BOTH:
            await client.xadd(jobs_stream(rail), poison.to_fields())

    async def is_parked() -> bool:
        return bool(await value(world, "SELECT count(*) FROM fleet.parked_entries WHERE readded_at IS NULL"))

    await until(is_parked, "parked entry")
    await letters_of(world, _BOTH)


async def _stop_the_api(world: World) -> None:
    """Stop it while payments wait for their permits, which adapters then ask for in vain."""
    adapters = adapters_of(world, _RAIL)
    send_signal(world, adapters, signal.SIGSTOP)
    try:
        await pay(world, _SOME)
    finally:
        send_signal(world, [API], signal.SIGSTOP)
        send_signal(world, adapters, signal.SIGCONT)

    async def asked_in_vain() -> bool:
        return await _counted(world, adapters, "fleet_core_unreachable_total{") > 0

    await until(asked_in_vain, "permit that was asked for in vain")


async def _go_on_api(world: World) -> None:
    send_signal(world, [API], signal.SIGCONT)


async def _more_payments(world: World) -> None:
    await pay(world, _SOME)


async def _garble_a_message(world: World) -> None:
    """Put a message into the bank's mailbox that is no XML, as a bank that was cut off would."""
    now = datetime.now(UTC).isoformat()
    row = ("camt.054.001.08", OWN_ACCOUNT_ID, now, now, "<Document><BkToCstmrDbtCdtNtfctn>")
    with closing(sqlite3.connect(world.stack.home / "bank-book.sqlite", timeout=10)) as book, book:
        book.execute("INSERT INTO message (type, account, due_at, released_at, body) VALUES (?, ?, ?, ?, ?)", row)


async def _compare_a_day(world: World) -> None:
    """Do with today's register what a person on call may, twice, so that its time is a rate."""
    info = world.stack.info
    asked = DayAsked(rail=_RAIL, business_day=datetime.now(ZoneInfo("Asia/Bangkok")).date())
    query: dict[str, Any] = {"rail": asked.rail, "day": asked.business_day.isoformat()}
    async with FleetClient(info.public_url, info.operator_key_id, info.operator_key_secret) as operator:
        await operator.call("POST", "/v1/registers:fetch", RegistersAsked, body=asked)

        async def has_come() -> bool:
            found = await operator.call("GET", "/v1/registers", RegisterFileList, query=query)
            return any(each.state is RegisterState.COMPLETE for each in found.items)

        await until(has_come, "register of the day")
        for _ in range(2):
            await operator.call("POST", "/v1/recon/runs", RegisterRunList, body=asked)
            # Longer than a scrape: what was there between two counts is seen as a rate.
            await asyncio.sleep(3)


RAILS_AND_OTHERS: Final = (
    Scenario("an entry that nobody has read is lost from its stream", (), _lose_an_entry, _is_put_back),
    Scenario(
        "streams hold a job of tomorrow's version, and what is no job at all",
        ("DeadLettersOpen",),
        _write_jobs_that_nobody_reads,
        close_what_is_open,
    ),
    Scenario("the API stands still while permits are asked for", ("ProcessDown",), _stop_the_api, _go_on_api),
    Scenario(
        "the core keeps no evidence, and more of it comes than an adapter holds",
        ("EvidenceDropped",),
        planted("REVOKE INSERT ON fleet.evidence FROM fleet_worker"),
        planted("GRANT INSERT ON fleet.evidence TO fleet_worker"),
        _more_payments,
    ),
    Scenario("a message of the bank cannot be read", ("BankMessageRefused",), _garble_a_message, nothing),
    Scenario("a person compares the register of the day with the books", (), _compare_a_day, nothing),
)
