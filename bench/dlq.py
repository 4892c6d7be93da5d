"""Search among 700,000 dead letters: the page of 50, judged, by each narrowing that people use; groups over all."""

import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from bench.databases import bench_database
from bench.measurement import Measurement, at_most, shown
from core.domain.context import Context
from core.services.on_call.dead_letters import LetterFilter
from core.store.database import Database
from core.store.on_call.dead_letters import DeadLetterStore
from core.store.on_call.redrives import RedriveStore
from core.store.vault import PostgresVault
from fleet.stack.provision import RoleUrls

_ROUNDS = 40
_P95_MS = 200
_COLUMNS = (
    "id", "tenant_id", "stream", "entry_id", "rail", "job_id", "error_class", "fingerprint", "message", "deliveries",
    "body", "operation", "kind", "provider", "reference", "received_at",
)  # fmt: skip


async def run(letters: int = 700_000) -> list[Measurement]:
    """Fill a database of its own and search it as the worker role does."""
    async with bench_database("fleet_bench_dlq") as made:
        return await _measure(made.urls, letters)


async def _measure(urls: RoleUrls, letters: int) -> list[Measurement]:
    began = time.monotonic()
    await _fill(urls.admin, letters)
    found = [shown(f"{letters:,} letters filled by COPY", time.monotonic() - began, "s")]
    database = await Database.connect(urls.worker, max_size=2, application_name="bench")
    store, counts = DeadLetterStore(PostgresVault(bytes(32))), RedriveStore()
    searches: dict[str, Callable[[int], LetterFilter]] = {
        "newest": lambda _: LetterFilter(),
        "by fingerprint": lambda n: LetterFilter(fingerprint=f"print-{n % 500}"),
        "by class and rail": lambda n: LetterFilter(error_class=f"class_{n % 12}", rail=f"rail{n % 3}"),
        "by reference": lambda n: LetterFilter(text=f"REF{n * 997 % letters}"),
        "by a word that half of them have": lambda _: LetterFilter(text="gateway"),
        "by two words and a day": lambda n: LetterFilter(
            text=f"node{n % 40} refused", received_after=datetime.now(UTC) - timedelta(days=1)
        ),
        "by a payment that is not there": lambda _: LetterFilter(intent_id=uuid4()),
    }
    context = Context(None, "bench")
    try:
        async with database.unit_of_work(context) as uow:
            for name, wanted in searches.items():

                async def search(n: int, wanted: Callable[[int], LetterFilter] = wanted) -> Any:
                    return await store.list_letters(uow, wanted(n), 51)

                found.append(at_most(f"search {name}: p95", await _p95_ms(search, _ROUNDS), "ms", _P95_MS))
            grouped = await _p95_ms(lambda _: store.group_letters(uow, LetterFilter(), 50), 5)
            found.append(shown("groups by fingerprint over all: p95", grouped, "ms"))
            dry = await _p95_ms(lambda _: counts.count_standings(uow, LetterFilter(fingerprint="print-7")), 5)
            found.append(shown(f"dry run of a redrive of {letters // 500:,} letters: p95", dry, "ms"))
    finally:
        await database.close()
    return found


async def _fill(admin_url: str, letters: int) -> None:
    """COPY the letters into the table without its indexes, which are then made as they were."""
    admin = await asyncpg.connect(admin_url, command_timeout=1800)
    indexes = await admin.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'fleet' AND tablename = 'dead_letters'"
        " AND indexname LIKE 'dead_letters_by_%'"
    )
    for index in indexes:
        await admin.execute(f"DROP INDEX fleet.{index['indexname']}")
    await admin.copy_records_to_table(
        "dead_letters", schema_name="fleet", records=_letters(letters), columns=list(_COLUMNS)
    )
    await admin.execute("SET maintenance_work_mem = '256MB'")
    for index in indexes:
        await admin.execute(index["indexdef"])
    await admin.execute("VACUUM ANALYZE fleet.dead_letters")
    await admin.close()


def _letters(count: int) -> Iterator[tuple[Any, ...]]:
    """Yield letters a second apart, the newest last, of 500 kinds in 12 classes on 3 rails."""
    first, tenant = datetime.now(UTC) - timedelta(seconds=count), UUID(int=7)
    for n in range(count):
        message = f"the {'gateway' if n % 2 else 'provider'} of node{n % 40} {'refused' if n % 3 else 'dropped'} it"
        yield (
            uuid4(), tenant, "{rail0}:jobs", f"{n}-0", f"rail{n % 3}", uuid4(), f"class_{n % 12}", f"print-{n % 500}",
            message, 3, b"", "PAYOUT", "pay", f"p{n % 3}", f"REF{n}", first + timedelta(seconds=n),
        )  # fmt: skip


async def _p95_ms(work: Callable[[int], Awaitable[Any]], rounds: int) -> float:
    taken = []
    for n in range(rounds):
        began = time.perf_counter()
        await work(n)
        taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)[int(len(taken) * 0.95) - (len(taken) < 20)]
