"""A limit has one calendar, whatever carries the payments that it counts: two rails, at midnights, on real counters."""

from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.intents import IntentRow
from core.services.terms.limits import LimitBook
from core.services.terms.set_limits import wallet_limits
from core.store.terms import limits
from core.store.terms.limits import LimitStore
from schemas.events import IntentState
from tests.integration.api.conftest import World
from tests.integration.api.test_limits import put, standing
from tests.support.signed import Signed

MIGRATIONS = Path(limits.__file__).parents[1] / "migrations"
QUOTA = {"name": "few", "kind": "QUOTA", "subject": "TENANT", "object": "WALLETS", "max_count": 9}


@pytest.fixture
async def operator(world: World) -> Signed:
    """A client whose key names LIMITS."""
    return await world.other(operations=["LIMITS", "*"])


async def second_rail(world: World, zone: str) -> None:
    """Give payouts a second rail, for phones of another kind, whose days begin elsewhere."""
    await world.admin.execute(
        "INSERT INTO fleet.rail_registrations (rail, version, body, body_hash) SELECT 'other', 1,"
        " jsonb_set(jsonb_set(body, '{rail}', '\"other\"'), '{operations,PAYOUT,business_timezone}',"
        " to_jsonb($1::text)), 'x' FROM fleet.rail_registrations ORDER BY version DESC LIMIT 1",
        zone,
    )
    await world.admin.execute(
        "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account, priority)"
        " VALUES ($1, 'PAYOUT', 'THB', 'other', 'OTHER', 'main', 200)",
        world.tenant_id,
    )
    world.forget_routes()


async def take(world: World, wallet: str, rail: str, at: datetime) -> bool:
    """Let a payout of 100 over a rail take its limits at a moment, as acceptance does; return whether it fits."""
    intent = IntentRow(
        id=uuid4(), tenant_id=world.tenant_id, service_key_id="k", operation="PAYOUT", state="CREATED",
        accept_state="CREATED", wallet_id=UUID(wallet), amount_minor=100, currency="THB", rail=rail,
    )  # fmt: skip
    async with world.core.ports.unit_of_work(Context(world.tenant_id, "test")) as uow:
        desk = await LimitBook(LimitStore()).open(uow, [intent], at)
        assert desk is not None
        fits = desk.admit(intent) is None
        await desk.write(uow, [(intent, IntentState.AUTHORIZED)])
    return fits


@pytest.mark.parametrize(
    ("kind", "rails", "tenant", "moments"),
    [
        # 17:00 UTC is midnight in Bangkok: the tenant's day, UTC's, goes on.
        ("DAY", ("Asia/Bangkok", "UTC"), "UTC", ("2026-03-02T16:30Z", "2026-03-02T17:30Z", "2026-03-03T00:00Z")),
        ("MONTH", ("Asia/Bangkok", "UTC"), "UTC", ("2026-02-28T16:30Z", "2026-02-28T17:30Z", "2026-03-01T00:00Z")),
        # The day of 23 hours: it begins at 05:00 UTC and ends at 04:00.
        (
            "DAY", ("Asia/Bangkok", "America/New_York"), "America/New_York",
            ("2026-03-08T05:00Z", "2026-03-09T03:59Z", "2026-03-09T04:00Z"),
        ),
        # Both rails are of one zone, so their day counts: not the tenant's.
        (
            "DAY", ("Asia/Bangkok", "Asia/Bangkok"), "UTC",
            ("2026-03-02T17:00Z", "2026-03-03T16:59Z", "2026-03-03T17:00Z"),
        ),
    ],
)  # fmt: skip
async def test_two_rails_in_two_zones_share_one_counter_of_one_calendar(
    world: World, operator: Signed, kind: str, rails: tuple[str, str], tenant: str, moments: tuple[str, str, str]
) -> None:
    wallet = await world.funded_wallet(10_000)
    await world.admin.execute("UPDATE fleet.tenants SET business_timezone = $1", tenant)
    await world.register(business_timezone=rails[0])
    await second_rail(world, rails[1])
    made = await put(operator, kind=kind, operation="PAYOUT", max_amount_minor=100)
    zone = rails[0] if rails[0] == rails[1] else tenant
    assert (made["timezone"], made["limit"]["timezone"]) == (zone, None)
    first, last, next_period = (datetime.fromisoformat(each) for each in moments)
    assert await take(world, wallet, "noop", first)
    assert not await take(world, wallet, "other", last), "one limit of 100 let 200 pass"
    assert not await take(world, wallet, "noop", last)
    assert await take(world, wallet, "other", next_period)
    assert not await take(world, wallet, "noop", next_period)
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.limit_usage") == 2
    async with world.core.ports.unit_of_work(Context(world.tenant_id, "test")) as uow:
        (shown,) = (await wallet_limits(uow, LimitStore(), world.tenant_id, UUID(wallet), last)).items
    assert (shown.timezone, shown.held_minor, shown.left_minor) == (zone, 100, 0)
    assert shown.renews_at == next_period


async def test_a_limit_keeps_its_calendar_whatever_routes_and_the_tenant_say_later(
    world: World, operator: Signed
) -> None:
    await world.register(business_timezone="Asia/Bangkok")
    first = await put(operator, operation="PAYOUT")
    await second_rail(world, "Asia/Tokyo")
    await world.admin.execute("UPDATE fleet.tenants SET business_timezone = 'Asia/Dubai'")
    again = await put(operator, operation="PAYOUT", max_amount_minor=5)
    assert [each["timezone"] for each in (first, again)] == ["Asia/Bangkok"] * 2
    assert (await put(operator, name="new", operation="PAYOUT"))["timezone"] == "Asia/Dubai"
    moved = await put(operator, operation="PAYOUT", timezone="UTC")
    disabled = (await operator.post(f"/v1/limits/{first['id']}/disable", {})).json()
    assert (moved["timezone"], disabled["timezone"]) == ("UTC", "UTC")
    assert (await operator.post("/v1/limits", QUOTA)).json()["timezone"] is None
    listed = {each["name"]: each["timezone"] for each in (await operator.get("/v1/limits")).json()["items"]}
    assert listed == {"daily": "UTC", "new": "Asia/Dubai", "few": None}
    wallet = await world.funded_wallet(10_000)
    assert (await standing(operator, wallet, "new"))["timezone"] == "Asia/Dubai"


async def test_limits_of_before_get_the_days_that_they_had_and_where_two_were_open_the_tenants(
    world: World, operator: Signed
) -> None:
    await world.register(business_timezone="Asia/Bangkok")
    await world.admin.execute("UPDATE fleet.tenants SET business_timezone = 'Asia/Dubai'")
    await put(operator, name="of-the-rail", operation="PAYOUT")
    await put(operator, name="any")
    await put(operator, name="own", timezone="Asia/Tokyo")
    await operator.post("/v1/limits", QUOTA)
    text = (MIGRATIONS / "0141_limits_keep_their_calendar.sql").read_text().partition("text;")[2]
    assert "UPDATE fleet.limits" in text
    for rail in ("Asia/Bangkok", "Asia/Dubai"):
        await _as_before(world)
        await world.admin.execute(text)
        rows = await world.admin.fetch("SELECT name, timezone FROM fleet.limits")
        of_before = {"of-the-rail": rail, "any": "Asia/Dubai", "own": "Asia/Tokyo", "few": None}
        assert {row["name"]: row["timezone"] for row in rows} == of_before
        if rail == "Asia/Bangkok":
            await second_rail(world, "UTC")
    await _as_before(world)
    wallet = await world.funded_wallet(10_000)
    world.core.ports.limits.forget(world.tenant_id)
    assert (await standing(operator, wallet, "of-the-rail"))["timezone"] == "Asia/Dubai", "one of an older process"
    with pytest.raises(asyncpg.RestrictViolationError):
        await world.admin.execute("UPDATE fleet.limits SET timezone = 'UTC'")


async def _as_before(world: World) -> None:
    """Take the calendars away, which nothing else may."""
    await world.admin.execute(
        "ALTER TABLE fleet.limits DISABLE TRIGGER refuse_change; UPDATE fleet.limits SET timezone = NULL;"
        " ALTER TABLE fleet.limits ENABLE TRIGGER refuse_change"
    )
