"""Days and months of limits where calendars are hard: the clock of the database is moved, and the API is asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Any

import asyncpg
import pytest

from fleet.stack.provision import RoleUrls
from tests.integration.api.conftest import World, open_world, payout, register
from tests.support.moved_clock import MovedClock
from tests.support.signed import Signed

ROOM = 100


def utc(*at: int) -> datetime:
    return datetime(*at, tzinfo=UTC)  # type: ignore[arg-type,misc]  # the parts of a date, as they are written


@dataclass
class Calendar:
    """A core whose clock is the test's, and whose rail has its days in a timezone."""

    world: World
    operator: Signed
    clock: MovedClock
    numbers: "count[int]" = field(default_factory=count)

    async def limit(self, kind: str, **changed: Any) -> None:
        """Allow 100 a period, of payouts: the rail says where its days begin."""
        body = {"name": kind.lower(), "kind": kind, "currency": "THB", "operation": "PAYOUT", "max_amount_minor": ROOM}
        answer = await self.operator.post("/v1/limits", body | changed)
        assert answer.status_code == 201, answer.text

    to: str | None = None
    """Whose wallet is paid, without a rail; left out, payouts are asked for."""

    async def pay(self, wallet: str, amount_minor: int, at: datetime) -> dict[str, Any]:
        """Ask at a moment; return the intent."""
        await self.clock.set(at)
        body = payout(wallet, amount_minor)
        if self.to is not None:
            body |= {"operation": "INTERNAL_P2P", "counterparty_wallet_id": self.to, "payee": None}
        answer = await self.world.api.post("/v1/intents", body, key=f"k{next(self.numbers)}")
        assert answer.status_code == 201, answer.text
        intent: dict[str, Any] = answer.json()
        return intent

    async def renews(self, wallet: str, first: datetime, second: datetime) -> None:
        """Fill a period at its first moment, and see that it ends at `second` and not a second earlier."""
        taken = "AUTHORIZED" if self.to is None else "SETTLED"
        assert (await self.pay(wallet, ROOM, first))["state"] == taken
        for at in (first, second - timedelta(seconds=1)):
            refused = await self.pay(wallet, 1, at)
            assert refused["failure"]["code"] == "limit_exceeded", refused
            told = refused["failure"]["limit"]
            assert (datetime.fromisoformat(told["renews_at"]), told["remaining_minor"]) == (second, 0)
            (shown,) = (await self.operator.get(f"/v1/wallets/{wallet}/limits")).json()["items"]
            assert datetime.fromisoformat(shown["renews_at"]) == second
        assert (await self.pay(wallet, ROOM, second))["state"] == taken


@asynccontextmanager
async def calendar(urls: RoleUrls, admin: asyncpg.Connection, zone: str) -> AsyncIterator[Calendar]:
    clock = MovedClock(admin)
    await clock.install()
    async with open_world(urls, admin) as world:
        await register(admin, business_timezone=zone)
        yield Calendar(world, await world.other(operations=["LIMITS", "*"]), clock)


# Two days or months in a row each: what follows a short one is whole again.
DAYS = {
    "Asia/Bangkok": [utc(2027, 3, 1, 17), utc(2027, 3, 2, 17), utc(2027, 3, 3, 17)],
    "Europe/Moscow": [utc(2027, 3, 1, 21), utc(2027, 3, 2, 21), utc(2027, 3, 3, 21)],
    # On 14 March 2027 New York's clocks go from two to three, on 7 November from two to one.
    "America/New_York": [utc(2027, 3, 14, 5), utc(2027, 3, 15, 4), utc(2027, 3, 16, 4)],
}
LONG_DAYS = {"America/New_York": [utc(2027, 11, 7, 4), utc(2027, 11, 8, 5), utc(2027, 11, 9, 5)]}
MONTHS = {
    "Asia/Bangkok": [utc(2026, 12, 31, 17), utc(2027, 1, 31, 17), utc(2027, 2, 28, 17), utc(2027, 3, 31, 17)],
    "Europe/Moscow": [utc(2028, 1, 31, 21), utc(2028, 2, 29, 21), utc(2028, 3, 31, 21)],
    "America/New_York": [utc(2027, 3, 1, 5), utc(2027, 4, 1, 4), utc(2027, 11, 1, 4), utc(2027, 12, 1, 5)],
}


@pytest.mark.parametrize("zone", DAYS)
async def test_a_day_ends_when_the_rails_calendar_ends_it_also_after_23_and_25_hours(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection, zone: str
) -> None:
    async with calendar(fresh_database, admin_connection, zone) as asked:
        await asked.limit("DAY")
        for first, second, third in filter(None, (DAYS[zone], LONG_DAYS.get(zone))):
            wallet = await asked.world.funded_wallet(10_000)
            await asked.renews(wallet, first, second)
            refused = await asked.pay(wallet, 1, third - timedelta(seconds=1))
            assert datetime.fromisoformat(refused["failure"]["limit"]["renews_at"]) == third
            assert (await asked.pay(wallet, 1, third))["state"] == "AUTHORIZED"


@pytest.mark.parametrize("zone", MONTHS)
async def test_a_month_ends_when_the_rails_calendar_ends_it_whatever_its_length(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection, zone: str
) -> None:
    async with calendar(fresh_database, admin_connection, zone) as asked:
        await asked.limit("MONTH")
        moments = MONTHS[zone]
        for first, second in pairwise(moments):
            if second - first < timedelta(days=32):
                # The last day of a month is still that month: paid on the 31st, it is the 1st that has room again.
                wallet = await asked.world.funded_wallet(10_000)
                await asked.renews(wallet, second - timedelta(hours=1), second)
                await asked.renews(await asked.world.funded_wallet(10_000), first, second)


async def test_an_intent_that_ends_in_another_period_gives_back_to_the_one_that_it_was_counted_in(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    async with calendar(fresh_database, admin_connection, "America/New_York") as asked:
        await asked.limit("DAY")
        wallet = await asked.world.funded_wallet(10_000)
        before = await asked.pay(wallet, ROOM, utc(2027, 11, 8, 4, 59))
        assert (await asked.pay(wallet, ROOM - 1, utc(2027, 11, 8, 5)))["state"] == "AUTHORIZED"
        cancelled = await asked.world.api.post(f"/v1/intents/{before['id']}/cancel", {})
        assert cancelled.json()["state"] == "CANCELLED"
        # What was given back belongs to Sunday: of Monday there is still one left, and no more.
        assert (await asked.pay(wallet, 2, utc(2027, 11, 8, 6)))["failure"]["limit"]["remaining_minor"] == 1
        assert (await asked.pay(wallet, 1, utc(2027, 11, 8, 6)))["state"] == "AUTHORIZED"
        assert (await asked.pay(wallet, ROOM, utc(2027, 11, 8, 4, 59, 59)))["state"] == "AUTHORIZED"


async def test_what_needs_no_rail_has_the_days_and_months_of_its_tenant(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    # The rail's days begin elsewhere, and have no say: no rail carries a transfer between wallets.
    async with calendar(fresh_database, admin_connection, "Asia/Bangkok") as asked:
        await admin_connection.execute("UPDATE fleet.tenants SET business_timezone = 'America/New_York'")
        asked.to = await asked.world.funded_wallet(1)
        await asked.limit("DAY", operation="INTERNAL_P2P")
        for first, second, _ in (DAYS["America/New_York"], *LONG_DAYS.values()):
            await asked.renews(await asked.world.funded_wallet(10_000), first, second)
        (day,) = (await asked.operator.get("/v1/limits")).json()["items"]
        await asked.operator.post(f"/v1/limits/{day['id']}/disable", {})
        await asked.limit("MONTH", operation="INTERNAL_P2P")
        for first, second in (MONTHS["America/New_York"][:2], MONTHS["America/New_York"][2:]):
            await asked.renews(await asked.world.funded_wallet(10_000), second - timedelta(hours=1), second)
            await asked.renews(await asked.world.funded_wallet(10_000), first, second)


async def test_a_limit_of_every_operation_has_one_day_whatever_rail_carries_the_payment(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    async with calendar(fresh_database, admin_connection, "Asia/Bangkok") as asked:
        await admin_connection.execute("UPDATE fleet.tenants SET business_timezone = 'America/New_York'")
        await asked.limit("DAY", operation=None)
        wallet, begins = await asked.world.funded_wallet(10_000), utc(2027, 3, 15, 4)
        assert (await asked.pay(wallet, ROOM - 1, begins))["state"] == "AUTHORIZED"
        # A new day in Bangkok, and the same one in New York: payouts and transfers share what is left of it.
        asked.to = await asked.world.funded_wallet(1)
        refused = await asked.pay(wallet, 2, utc(2027, 3, 15, 17))
        assert refused["failure"]["limit"]["remaining_minor"] == 1
        assert datetime.fromisoformat(refused["failure"]["limit"]["renews_at"]) == utc(2027, 3, 16, 4)
        assert (await asked.pay(wallet, 1, utc(2027, 3, 15, 17)))["state"] == "SETTLED"


async def test_a_limit_of_every_operation_ends_a_short_month_once_for_rails_and_transfers(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    async with calendar(fresh_database, admin_connection, "Asia/Bangkok") as asked:
        # Its own zone goes before the tenant's; there the month ends by summer time, having begun by winter time.
        await asked.limit("MONTH", operation=None, timezone="America/New_York")
        wallet, ends = await asked.world.funded_wallet(10_000), utc(2027, 4, 1, 4)
        other = await asked.world.funded_wallet(1)
        # April in Bangkok and by UTC, March yet where the limit counts: whatever carries it, it is March's.
        for to, at, amount, state in (
            (None, utc(2027, 3, 1, 5), ROOM - 3, "AUTHORIZED"),
            (other, utc(2027, 3, 31, 17), 1, "SETTLED"),
            (None, utc(2027, 4, 1, 0), 1, "AUTHORIZED"),
        ):
            asked.to = to
            assert (await asked.pay(wallet, amount, at))["state"] == state
        for asked.to in (None, other):
            refused = await asked.pay(wallet, 2, ends - timedelta(seconds=1))
            told = refused["failure"]["limit"]
            assert (told["remaining_minor"], datetime.fromisoformat(told["renews_at"])) == (1, ends)
        assert (await asked.pay(wallet, ROOM, ends))["state"] == "SETTLED"
