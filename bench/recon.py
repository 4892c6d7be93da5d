"""A register of 1,000,000 lines: read out of its file, kept, and compared with payments and ledger, in flat memory."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Self
from zoneinfo import ZoneInfo

import asyncpg
import psutil

from bench.databases import BenchDatabase, bench_database
from bench.measurement import Measurement, at_most, own_cpu_s, shown
from core.domain.context import Context
from core.domain.registers import Account
from core.services.recon.import_register import import_register
from core.services.recon.registers import compare_day
from core.store.database import Database
from fleet.cli.connection import find_connection
from fleet.cli.recon_registers import ReconCommandPorts
from schemas.register_mapping import RegisterMapping

LINES = int(os.environ.get("FLEET_BENCH_RECON_LINES", "1000000"))
_GOAL_S = 120
_GROWTH_MIB = 64
_ACCOUNT = Account("promptpay", "ipps-1", "sandbox")
_CONTEXT = Context(None, "bench")
_MAPPING = RegisterMapping.model_validate({
    "rail": "promptpay", "provider_account": "ipps-1", "provider_ref": {"column": "tx"}, "our_ref": {"column": "ref"},
    "direction": {"const": "OUT"}, "amount": {"column": "amount"}, "fee": {"column": "fee"},
    "currency": {"const": "THB"}, "at": {"column": "at"},
})  # fmt: skip
# As the ledger and the bus leave payments behind: an intent, its job, and the hold's posting, 100 a millisecond.
_FILL = """
SET session_replication_role = replica;
INSERT INTO fleet.accounts (id, tenant_id, ledger, code, flags) VALUES ('{clearing}', '{tenant}', 764, 2, 0);
INSERT INTO fleet.intents (id, tenant_id, service_key_id, operation, state, version, wallet_id, amount_minor, currency,
    rail, provider, provider_account, environment, accept_state, decision, created_at)
SELECT ('{prefix}' || '0' || lpad(to_hex(n), 19, '0'))::uuid, '{tenant}', 'k', 'PAYOUT', 'SETTLED', 5, '{wallet}',
    100 + n % 1000, 'THB', 'promptpay', 'ipps', 'ipps-1', 'sandbox', 'AUTHORIZED', 'POST', '{at}'
FROM generate_series(1, {lines}) n;
INSERT INTO fleet.jobs (id, tenant_id, intent_id, kind, operation, rail, provider, provider_account, environment, state,
    reference, amount_minor, currency, fence, deadline, stream, closed_at, created_at)
SELECT ('{prefix}' || '1' || lpad(to_hex(n), 19, '0'))::uuid, '{tenant}',
    ('{prefix}' || '0' || lpad(to_hex(n), 19, '0'))::uuid, 'pay', 'PAYOUT', 'promptpay', 'ipps', 'ipps-1', 'sandbox',
    'CLOSED', 'REF' || n, 100 + n % 1000, 'THB', 1, '{at}', 's', '{at}', '{at}'
FROM generate_series(1, {lines}) n;
INSERT INTO fleet.transfers (id, tenant_id, debit_account_id, credit_account_id, amount_minor, ledger, code, flags,
    pending_id, user_data, created_at)
SELECT ('{prefix}' || '2' || lpad(to_hex(n), 19, '0'))::uuid, '{tenant}', '{wallet}', '{clearing}', 100 + n % 1000, 764,
    1, 4, ('{prefix}' || '3' || lpad(to_hex(n), 19, '0'))::uuid,
    ('{prefix}' || '0' || lpad(to_hex(n), 19, '0'))::uuid, '{at}'
FROM generate_series(1, {lines}) n;
RESET session_replication_role;
ANALYZE fleet.intents; ANALYZE fleet.jobs; ANALYZE fleet.transfers;
"""


async def run(lines: int = LINES) -> list[Measurement]:
    """Fill a database of its own with a day of payments, write the provider's file of it, and reconcile the two."""
    async with bench_database("fleet_bench_recon") as made:
        return await _measure(made, made.home / "register.csv", lines)


async def _measure(made: BenchDatabase, file: Path, lines: int) -> list[Measurement]:
    at = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
    admin = await asyncpg.connect(made.urls.admin, command_timeout=1800)
    names = {"tenant": _uuid(1), "clearing": _uuid(2), "wallet": _uuid(3)}
    prefix = f"{int(at.timestamp() * 1000):012x}"
    await admin.execute(_FILL.format(lines=lines, at=at.isoformat(), prefix=prefix, **names))
    await admin.close()
    few = file.with_name("few.csv")
    _write(few, min(lines, 20_000), at)
    _write(file, lines, at)
    database = await Database.connect(made.urls.worker, max_size=2, application_name="bench")
    connection = replace(find_connection(), master_key=made.secrets.master_key)
    ports = ReconCommandPorts(database, connection)
    process = psutil.Process()
    try:
        await _take(ports, few, date(2020, 1, 1))  # everything that is made once is there
        before = process.memory_info().rss
        began = _Clocks.read(process)
        await _take(ports, file, at.date())
        taken = _Clocks.read(process)
        done = await compare_day(ports, _CONTEXT, _ACCOUNT, at.date())
        ended, grown = _Clocks.read(process), (process.memory_info().rss - before) / (1 << 20)
    finally:
        await database.close()
    counts = {each.match.value: each.count for each in done.tallies if each.side == "THEIRS"}
    wrong = len(range(1, lines + 1, 10_000))
    if counts != {"matched": lines - wrong, "amount": wrong}:
        raise AssertionError(counts)
    return [
        *taken.since(began, f"{lines:,} lines read out of a CSV file and kept"),
        *ended.since(taken, f"{lines:,} lines compared with as many payments and the ledger"),
        at_most(f"{lines:,} lines reconciled in all", ended.wall_s - began.wall_s, "s", _GOAL_S),
        shown("processor time of a line in all", (ended.all_s - began.all_s) / lines * 1e6, "µs"),
        at_most("growth of our memory meanwhile", grown, "MiB", _GROWTH_MIB),
    ]


@dataclass(frozen=True, slots=True)
class _Clocks:
    """What the clock on the wall says, and the processor time of this process and of all, PostgreSQL included."""

    wall_s: float
    own_s: float
    all_s: float

    @classmethod
    def read(cls, process: psutil.Process) -> Self:
        return cls(time.monotonic(), sum(process.cpu_times()[:2]), own_cpu_s())

    def since(self, before: Self, name: str) -> list[Measurement]:
        own_s, all_s = self.own_s - before.own_s, self.all_s - before.all_s
        return [
            shown(name, self.wall_s - before.wall_s, "s"),
            shown(f"{name}: processor time of our process", own_s, "s"),
            shown(f"{name}: processor time of PostgreSQL", all_s - own_s, "s"),
        ]


async def _take(ports: ReconCommandPorts, file: Path, day: date) -> None:
    with file.open("rb") as source:
        reading = await import_register(ports, _CONTEXT, _MAPPING, day, file.name, source)
    if reading.kept is None:
        raise AssertionError(reading.refused[:3])


def _write(file: Path, lines: int, at: datetime) -> None:
    """Write the provider's file; every ten-thousandth amount is another than ours."""
    with file.open("w", encoding="ascii") as text:
        text.write("tx,ref,amount,fee,at\n")
        text.writelines(_rows(lines, at.astimezone(ZoneInfo("Asia/Bangkok")).isoformat()))


def _rows(lines: int, at: str) -> Iterator[str]:
    for n in range(1, lines + 1):
        minor = 100 + n % 1000 + (n % 10_000 == 1)
        yield f"PX{n},REF{n},{minor // 100}.{minor % 100:02},0.00,{at}\n"


def _uuid(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012}"
