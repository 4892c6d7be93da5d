"""Transfers between wallets, which need no rail: how many a second, and what fees and limits cost on top."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count, cycle, islice, product
from pathlib import Path
from typing import Any

import aiohttp

from bench.load import Load
from bench.measurement import Measurement, at_least, at_most, shown
from core.bootstrap import open_core
from core.settings import Settings
from fleet.stack.profile import STANDARD
from fleet.stack.stack import Stack, StackPlan, running
from schemas.operations import OperationType
from schemas.tenants import TenantRequest

WALLETS, RULES, BATCH, IN_FLIGHT = 400, 1_000, 500, 4
_CURRENCIES = ("THB", "USD", "RUB", "SGD", "JPY", "EUR", "GBP", "CNY", "KRW", "INR", "HKD", "CHF")
_CONDITIONS = (
    "amount_minor >= 100000000",
    "tier == 'gold' && amount_minor > 50000000",
    "channel == 'agent'",
    "weekday >= 6 && hour >= 22 && tier == 'late'",
)
"""Of what a payment meets, nearly all is looked at and does not apply."""
_WARM_TURNS = 3
"""Each connection plans a statement anew the first five times."""


@dataclass
class Transfers(Load):
    """A client of one tenant that pays from wallet to wallet."""

    wallets: list[str] = field(default_factory=list)
    numbers: "count[int]" = field(default_factory=count)

    async def open_wallets(self) -> None:
        """Open every wallet and put enough into each."""
        for _ in range(WALLETS // 8):
            await asyncio.gather(*(self._open_one() for _ in range(8)))
        self.wallet_id = self.wallets[0]

    async def _open_one(self) -> None:
        each = replace(self)
        await each.open_wallet()
        self.wallets.append(each.wallet_id)

    def intent(self, number: int) -> dict[str, Any]:
        """Return the body of one transfer; payers and payees are spread over all wallets."""
        payer, step = number % len(self.wallets), 1 + number * 7 % (len(self.wallets) - 1)
        return {
            "operation": "INTERNAL_P2P",
            "wallet_id": self.wallets[payer],
            "counterparty_wallet_id": self.wallets[(payer + step) % len(self.wallets)],
            "amount_minor": 10_000 + number % 1000,
            "currency": "THB",
        }

    async def timed(self, total: int) -> float:
        """Make so many transfers by the batch API; return the seconds that it took."""
        # Whole thousands apart, so that no number is used twice.
        first = next(self.numbers) * 1_000_000
        starts = iter(range(first, first + total, BATCH))

        async def work() -> None:
            for start in starts:
                await self.pay_batch(start, BATCH)

        started = time.monotonic()
        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
        return time.monotonic() - started


async def run(total: int = 40_000) -> list[Measurement]:
    """Measure transfers a second, all of them settled when they are answered."""
    async with _stack() as (stack, http):
        tenant = await _tenant(stack, http, "plain")
        await tenant.timed(2_000)  # warm
        taken_s = await tenant.timed(total)
        tenant.wallets = tenant.wallets[:2]
        hot_s = await tenant.timed(total // 4)
    return [
        at_least(f"transfers by the batch API over {total:,}, {WALLETS} wallets", total / taken_s, "/s", 3_000),
        shown("the same between two wallets", total / 4 / hot_s, "/s"),
    ]


async def run_fees(turns: int = 6, total: int = 5_000) -> list[Measurement]:
    """Measure in turns: a tenant without rules, one with a thousand fee rules, and one with three limits beside."""
    async with _stack() as (stack, http):
        tenants = {name: await _tenant(stack, http, name) for name in ("plain", "fees", "both")}
        for name in ("fees", "both"):
            await _set_rules(tenants[name])
        await _set_limits(tenants["both"])
        taken_s: dict[str, list[float]] = {name: [] for name in tenants}
        for turn in range(turns + _WARM_TURNS):
            for name in sorted(tenants, reverse=bool(turn % 2)):
                spent_s = await tenants[name].timed(total)
                if turn >= _WARM_TURNS:
                    taken_s[name].append(spent_s)
    plain, fees, both = (statistics.median(taken_s[name]) for name in ("plain", "fees", "both"))
    on_top = _paired_cost(taken_s, "both")
    return [
        shown("transfers without rules", total / plain, "/s"),
        shown(f"with {RULES:,} fee rules, one of which applies", total / fees, "/s"),
        shown("with those and three limits", total / both, "/s"),
        shown("cost of the fees alone", _paired_cost(taken_s, "fees"), "%"),
        at_most(f"cost of fees and limits on top, median of {turns} turns", on_top, "%", 25),
    ]


def _paired_cost(taken_s: Mapping[str, list[float]], name: str) -> float:
    """Return by how many percent a turn takes longer than the plain one beside it: what else runs slows both."""
    pairs = zip(taken_s[name], taken_s["plain"], strict=True)
    return statistics.median(mine / plain - 1 for mine, plain in pairs) * 100


@asynccontextmanager
async def _stack() -> AsyncIterator[tuple[Stack, aiohttp.ClientSession]]:
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as home:
        async with (
            running(StackPlan(Path(home), profile=STANDARD, rails={})) as stack,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200)) as http,
        ):
            yield stack, http


async def _tenant(stack: Stack, http: aiohttp.ClientSession, name: str) -> Transfers:
    """Make a tenant with funded wallets."""
    info = stack.info
    settings = Settings(
        DATABASE_URL=info.database_url,
        DATABASE_WORKER_URL=info.database_url,
        REDIS_URL=info.redis_url,
        master_key=info.master_key,
        db_pool_size=2,
    )
    async with open_core(settings) as core:
        asked = TenantRequest(name=name, operations=("*", "MANUAL_ADJUSTMENT", "ADJUSTMENT_ALONE", "FEES", "LIMITS"))
        made = await core.tenants.create("bench", asked)
    tenant = Transfers(replace(info, key_id=made.key_id, key_secret=made.secret), http)
    await tenant.open_wallets()
    return tenant


async def _set_rules(tenant: Transfers) -> None:
    """Set a thousand rules over every operation and a dozen currencies; one fires on each transfer."""
    operations = [each for each in OperationType if each not in ("REFUND", "MANUAL_ADJUSTMENT", "EXCHANGE")]
    shelves = list(product(operations, _CURRENCIES))
    bodies = (
        {
            "name": f"rule-{number}",
            "operation": operation,
            "currency": currency,
            "when": _CONDITIONS[number // len(shelves) % len(_CONDITIONS)],
            "fee": {"basis_points": 50 + number % 50},
        }
        for number, (operation, currency) in enumerate(islice(cycle(shelves), RULES - 1))
    )
    for body in bodies:
        await tenant.call("POST", "/v1/fee-rules", body)
    applies = {"when": "amount_minor >= 10000 && channel != 'staff'", "fee": {"fixed_minor": 5, "basis_points": 25}}
    await tenant.call(
        "POST", "/v1/fee-rules", {"name": "transfer", "operation": "INTERNAL_P2P", "currency": "THB"} | applies
    )


async def _set_limits(tenant: Transfers) -> None:
    for kind, more in (("TRANSACTION", {}), ("DAY", {"max_count": 10**8}), ("MONTH", {})):
        body = {"name": kind.lower(), "kind": kind, "currency": "THB", "max_amount_minor": 10**14} | more
        await tenant.call("POST", "/v1/limits", body)
