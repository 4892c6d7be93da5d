"""Search among 700,000 dead letters, each of a payment with its job, permits, facts and evidence: the page of 50,
judged, by everything that a letter may be narrowed by; groups and a redrive's dry run over all that match.
"""

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
_NOW = datetime.now(UTC)


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
    searches = _searches(letters)
    context = Context(None, "bench")
    try:
        async with database.unit_of_work(context) as uow:
            for name, wanted in searches.items():

                async def search(n: int, wanted: Callable[[int], LetterFilter] = wanted) -> Any:
                    return await store.list_letters(uow, wanted(n), 51)

                found.append(at_most(f"search {name}: p95", await _p95_ms(search, _ROUNDS), "ms", _P95_MS))
            some = await store.list_letters(uow, LetterFilter(permits=3), _ROUNDS)
            one = await _p95_ms(lambda n: store.tried(uow, some[n % len(some)]), _ROUNDS)
            found.append(at_most("one letter's attempts and evidence: p95", one, "ms", _P95_MS))
            grouped = await _p95_ms(lambda _: store.group_letters(uow, LetterFilter(), 50), 5)
            found.append(shown("groups by fingerprint over all: p95", grouped, "ms"))
            dry = await _p95_ms(lambda _: counts.count_standings(uow, LetterFilter(fingerprint="print-7")), 5)
            found.append(shown(f"dry run of a redrive of {letters // 500:,} letters: p95", dry, "ms"))
    finally:
        await database.close()
    return found


def _searches(letters: int) -> dict[str, Callable[[int], LetterFilter]]:
    """Return each kind of search; the number makes each round ask for something else."""

    def place(n: int) -> int:
        return n * 997 % letters

    return {
        "newest": lambda _: LetterFilter(),
        "by fingerprint": lambda n: LetterFilter(fingerprint=f"print-{n % 500}"),
        "by class and rail": lambda n: LetterFilter(error_class=f"class_{n % 12}", rail=f"rail{n % 3}"),
        "by class and rail that never meet": lambda _: LetterFilter(error_class="class_1", rail="rail0"),
        "by operation": lambda _: LetterFilter(operation="PAYOUT"),
        "by provider": lambda n: LetterFilter(provider=f"p{n % 3}"),
        "by provider and fingerprint that never meet": lambda _: LetterFilter(provider="p0", rail="rail1"),
        "by tenant": lambda _: LetterFilter(tenant_id=_TENANT),
        "by another tenant": lambda _: LetterFilter(tenant_id=UUID(int=9)),
        "by time": lambda n: LetterFilter(received_after=_at(place(n) + 3600), received_before=_at(place(n))),
        "by permits": lambda n: LetterFilter(permits=n % 4),
        "by permits that none had": lambda _: LetterFilter(permits=40),
        "by permits, class and a time long ago": lambda n: LetterFilter(
            permits=n % 4, error_class=f"class_{n % 12}", received_before=_at(letters - 3600)
        ),
        "by payment": lambda n: LetterFilter(intent_id=_id(place(n), 1)),
        "by job": lambda n: LetterFilter(job_id=_id(place(n), 2)),
        "by trace": lambda n: LetterFilter(trace_id=_TRACE.format(n=place(n) + 1)),
        "by evidence": lambda n: LetterFilter(evidence_id=UUID(int=place(n) + 1)),
        "by reference": lambda n: LetterFilter(text=f"REF{place(n)}"),
        "by an amount in the payload": lambda n: LetterFilter(text=f"{100 + n % 9973}"),
        "by a word that half of them have": lambda _: LetterFilter(text="gateway"),
        "by a word that none has": lambda _: LetterFilter(text="unheard"),
        "by a frequent word and a rare kind": lambda n: LetterFilter(text="gateway", fingerprint=f"print-{n % 500}"),
        "by two words and a day": lambda n: LetterFilter(text=f"node{n % 40} refused", received_after=_at(86_400)),
        "by two words that never meet": lambda n: LetterFilter(text=f"node{n % 40} node{n % 40 + 1}"),
        "by two words that half of them have and that never meet": lambda _: LetterFilter(text="gateway provider"),
        "by rail and provider that never meet, and a word": lambda _: LetterFilter(
            rail="rail0", provider="p1", text="node0"
        ),
        "by tenant, operation and a word that none has": lambda _: LetterFilter(
            tenant_id=_TENANT, operation="PAYOUT", text="unheard"
        ),
        "by a word that a seventh have, all old": lambda _: LetterFilter(text="ancient"),
        "by such a word, a rail and a class": lambda n: LetterFilter(
            text="ancient", rail=f"rail{n % 3}", error_class=f"class_{n % 12}"
        ),
        "by such a word and a week in which it was not": lambda _: LetterFilter(
            text="ancient", received_after=_at(letters * 5 // 7)
        ),
        "by everything at once": lambda n: LetterFilter(
            rail=f"rail{n % 3}",
            error_class=f"class_{n % 12}",
            fingerprint=f"print-{n % 500}",
            operation="PAYOUT",
            provider=f"p{n % 3}",
            permits=n % 4,
            tenant_id=_TENANT,
            text="gateway",
            received_before=_NOW,
        ),
        "by a payment that is not there": lambda _: LetterFilter(intent_id=uuid4()),
    }


async def _fill(admin_url: str, letters: int) -> None:
    """COPY letters, payments, jobs, permits and facts into tables without their other indexes, which come after."""
    admin = await asyncpg.connect(admin_url, command_timeout=1800)
    # Neither triggers nor row security: what is written here was decided long ago.
    await admin.execute("SET session_replication_role = 'replica'; SET maintenance_work_mem = '256MB'")
    indexes = await admin.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'fleet' AND tablename = 'dead_letters'"
        " AND indexname LIKE 'dead_letters_by_%'"
    )
    for index in indexes:
        await admin.execute(f"DROP INDEX fleet.{index['indexname']}")
    for table, columns, rows in _TABLES:
        await admin.copy_records_to_table(table, schema_name="fleet", records=rows(letters), columns=list(columns))
    for index in indexes:
        await admin.execute(index["indexdef"])
    await admin.execute(_RAILS)
    for table, _, _ in _TABLES:
        await admin.execute(f"VACUUM ANALYZE fleet.{table}")
    await admin.close()


_TENANT = UUID(int=7)
_TRACE = "{n:032x}"
# What the rails can do decides verdicts: one deduplicates and answers, one only answers, one does neither.
_RAILS = """
INSERT INTO fleet.rail_registrations (rail, version, body, body_hash)
SELECT 'rail' || n, 1, jsonb_build_object('timing', '{"send_by_s": 5, "call_total_s": 10}'::jsonb, 'operations',
    jsonb_build_object('PAYOUT', jsonb_build_object('inquiry', n < 2, 'deduplicates_reference', n < 1,
        'dedup_window_s', 864000))), 'bench'
FROM generate_series(0, 2) n
"""


def _at(n: int) -> datetime:
    return _NOW - timedelta(seconds=n)


def _id(n: int, table: int) -> UUID:
    """Return an id of the time when the n-th payment was made, as the core makes them."""
    at_ms = int(_at(n).timestamp() * 1000)
    return UUID(int=at_ms << 80 | 7 << 76 | table << 64 | 2 << 62 | n)


def _permits(n: int) -> int:
    return n % 4


def _letters(count: int) -> Iterator[tuple[Any, ...]]:
    """Yield letters a second apart, of 500 kinds in 12 classes on 3 rails; each is of a payment of its own."""
    for n in range(count):
        message = f"the {'gateway' if n % 2 else 'provider'} of node{n % 40} {'refused' if n % 3 else 'dropped'} it"
        message += " ancient" if n >= count * 6 // 7 else ""
        yield (
            uuid4(), _TENANT, f"{{rail{n % 3}}}:jobs", f"{n}-0", f"rail{n % 3}", _id(n, 2), _id(n, 1),
            f"class_{n % 12}", f"print-{n % 500}", message, 3, b"", "PAYOUT", "pay", f"p{n % 3}", f"REF{n}", _at(n),
            _permits(n), f"00-{_TRACE.format(n=n + 1)}-00f067aa0ba902b7-01",
            f'{{"amount_minor": {100 + n % 9973}, "currency": "THB", "payee_masked": "08x-xxx-{n % 10_000:04d}"}}',
        )  # fmt: skip


def _intents(count: int) -> Iterator[tuple[Any, ...]]:
    for n in range(count):
        state = "SETTLED" if n % 10 == 9 else "DISPATCHED"
        yield _id(n, 1), _TENANT, "key", "PAYOUT", state, 3, UUID(int=8), 100 + n % 9973, "THB", "VALIDATED"


def _jobs(count: int) -> Iterator[tuple[Any, ...]]:
    for n in range(count):
        rail, closed = f"rail{n % 3}", _at(n) if n % 10 == 9 else None
        yield (
            _id(n, 2), _TENANT, _id(n, 1), "pay", "PAYOUT", "CLOSED" if closed else "DEAD", rail, f"p{n % 3}", "main",
            "sandbox", f"REF{n}", 100 + n % 9973, "THB", _NOW + timedelta(days=1), f"{{{rail}}}:jobs", _permits(n),
            _at(n) if _permits(n) else None, closed, True,
        )  # fmt: skip


def _attempts(count: int) -> Iterator[tuple[Any, ...]]:
    for n in range(count):
        for fence in range(1, _permits(n) + 1):
            negative = _at(n) if n % 8 == 1 else None
            yield (_id(n, 2), fence, _TENANT, "SEND", f"REF{n}", "main", "sandbox", "key", UUID(int=n + 1),
                   UUID(int=n * 4 + fence), _at(n), negative)  # fmt: skip


def _facts(count: int) -> Iterator[tuple[Any, ...]]:
    for n in range(count):
        if _permits(n):
            yield (_id(n, 2), 1, "UNKNOWN", b"x" * 32, _TENANT, _id(n, 1), f"rail{n % 3}", '{"reason": "timed_out"}',
                   UUID(int=n + 1), _at(n))  # fmt: skip


def _evidence(count: int) -> Iterator[tuple[Any, ...]]:
    for n in range(count):
        if _permits(n):
            yield UUID(int=n + 1), _TENANT, f"rail{n % 3}", _id(n, 2), "answer", b"sealed", _at(n)


_TABLES: tuple[tuple[str, tuple[str, ...], Callable[[int], Iterator[tuple[Any, ...]]]], ...] = (
    ("dead_letters", (
        "id", "tenant_id", "stream", "entry_id", "rail", "job_id", "intent_id", "error_class", "fingerprint", "message",
        "deliveries", "body", "operation", "kind", "provider", "reference", "received_at", "permits", "traceparent",
        "payload",
    ), _letters),
    ("intents", (
        "id", "tenant_id", "service_key_id", "operation", "state", "version", "wallet_id", "amount_minor", "currency",
        "accept_state",
    ), _intents),
    ("jobs", (
        "id", "tenant_id", "intent_id", "kind", "operation", "state", "rail", "provider", "provider_account",
        "environment", "reference", "amount_minor", "currency", "deadline", "stream", "fence", "first_granted_at",
        "closed_at", "died",
    ), _jobs),
    ("attempts", (
        "job_id", "fence", "tenant_id", "mode", "reference", "provider_account", "environment", "service_key_id",
        "incarnation", "request_id", "granted_at", "negative_at",
    ), _attempts),
    ("facts", (
        "job_id", "fence", "verdict", "money_hash", "tenant_id", "intent_id", "rail", "body", "evidence_id",
        "received_at",
    ), _facts),
    ("evidence", ("id", "tenant_id", "rail", "job_id", "kind", "ciphertext", "received_at"), _evidence),
)  # fmt: skip
"""What is filled: the table, its columns, and who yields the rows."""


async def _p95_ms(work: Callable[[int], Awaitable[Any]], rounds: int) -> float:
    taken = []
    for n in range(rounds):
        began = time.perf_counter()
        await work(n)
        taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)[int(len(taken) * 0.95) - (len(taken) < 20)]
