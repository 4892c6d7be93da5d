"""Every process of the system answers the same three paths, and what it counts does not grow with the payments."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.__main__ import _ROLES
from core.store.database import Database
from fleet.client import FleetClient
from fleet.stack.stack import API, Stack
from schemas.api import BatchItem, IntentRequest, WalletRequest
from schemas.permits import Payee
from tests.support.more_processes import core_process
from tests.support.selection import mostly_long
from tests.support.waiting import until_async
from tools.metrics import series

PATHS: Final = ("/healthz", "/readyz", "/metrics")
OF_THE_CLIENT: Final = ("python_", "process_")
OF_FASTSTREAM: Final = "faststream_"


@asynccontextmanager
async def alone(stack: Stack, role: str) -> AsyncIterator[str]:
    """Run one role of the core beside the stack, as a deployment does; yield where its three paths are."""
    made = core_process(stack, f"alone-{role}", role)
    process = await asyncio.create_subprocess_exec(*made.spec.argv, env={**os.environ, **made.spec.env})
    try:
        yield made.base_url
    finally:
        process.terminate()
        assert await process.wait() == 0


async def answers(base_url: str) -> Mapping[str, httpx.Response]:
    """Return what the three paths answer once the process listens and is ready."""
    async with asyncio.timeout(150), httpx.AsyncClient(base_url=base_url, timeout=5) as client:
        while True:
            try:
                found = {path: await client.get(path) for path in PATHS}
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            if found["/readyz"].is_success:
                return found
            await asyncio.sleep(0.1)


def check(process: str, found: Mapping[str, httpx.Response]) -> None:
    """Alive, ready, and counting: with the heartbeat of the event loop, under names that the catalogue has."""
    assert {path: answer.status_code for path, answer in found.items()} == dict.fromkeys(PATHS, 200), process
    assert found["/healthz"].json()["status"] == "ok"
    text = found["/metrics"].text
    assert 'fleet_loop_heartbeat_timestamp_seconds{loop="event loop"}' in text, process
    known = series()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.startswith((*OF_THE_CLIENT, OF_FASTSTREAM)) and not sample.name.endswith("_created"):
                assert sample.name in known, f"{process} shows {sample.name}, which no catalogue has"


@pytest.mark.parametrize("role", mostly_long(_ROLES, "console"))
async def test_a_role_of_the_core_answers_the_three_paths(stack: Stack, role: str) -> None:
    async with alone(stack, role) as base_url:
        check(role, await answers(base_url))


async def test_every_adapter_and_the_api_answer_the_three_paths(stack: Stack) -> None:
    processes = dict(stack.info.metrics)
    assert {f"{rail}-1" for rail in stack.plan.rails} | {API} <= processes.keys()
    for name, url in processes.items():
        check(name, await answers(url.removesuffix("/metrics")))


def labels_of(text: str) -> dict[str, set[str]]:
    """Return the values of every label."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for name, value in sample.labels.items():
                found.setdefault(name, set()).add(value)
    return found


_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}|\d{6,}|[0-9a-f]{24}")


async def test_no_label_of_any_process_is_an_id(stack: Stack) -> None:
    async with httpx.AsyncClient() as client:
        for name, url in stack.info.metrics.items():
            for label, values in labels_of((await client.get(url)).text).items():
                if label == "le":
                    continue  # the edges of histograms
                assert not [value for value in values if _ID.search(value)], f"{label} of {name}"
                assert len(values) < 200, f"{label} of {name} is no closed set"


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_ten_thousand_payments_do_not_grow_the_series(stack: Stack) -> None:
    async def series_shown() -> dict[str, set[str]]:
        async with httpx.AsyncClient(timeout=10) as client:
            pages = {name: (await client.get(url)).text for name, url in stack.info.metrics.items()}
        return {
            name: {f"{sample.name}{sorted(sample.labels.items())}" for family in text_string_to_metric_families(text)
                   for sample in family.samples}
            for name, text in pages.items()
        }  # fmt: skip

    info = stack.info
    database = await Database.connect(info.database_url, max_size=2)
    async with FleetClient(info.public_url, info.key_id, info.key_secret) as client:
        view = await client.create_wallet(WalletRequest(owner="many", currency="THB"))
        funds = IntentRequest(operation="MANUAL_ADJUSTMENT", wallet_id=view.id, amount_minor=10**9, currency="THB")
        await client.create_intent(funds, idempotency_key=uuid4().hex)

        async def pay(count: int) -> None:
            asked = [
                BatchItem(idempotency_key=uuid4().hex, intent=IntentRequest(
                    operation="PAYOUT", wallet_id=view.id, amount_minor=1 + n, currency="THB",
                    payee=Payee(type="any", value=f"payee {n}")))
                for n in range(count)
            ]  # fmt: skip
            for start in range(0, count, 500):
                results = await client.create_intents(asked[start : start + 500])
                assert [each.problem for each in results if each.problem] == []

            async def settled() -> bool:
                async with database.acquire() as connection:
                    return not await connection.fetchval("SELECT count(*) FROM fleet.jobs WHERE closed_at IS NULL")

            await until_async(settled, 180)

        await pay(100)
        await asyncio.sleep(6)  # the observer has read what waits, and what does not
        before = await series_shown()
        await pay(10_000)
        await asyncio.sleep(6)
        after = await series_shown()
    await database.close()
    grown = {name: sorted(after[name] - before[name]) for name in before}
    assert sum(len(more) for more in grown.values()) < 40, grown
    assert not [line for more in grown.values() for line in more if _ID.search(line)]
