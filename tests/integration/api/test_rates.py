"""The rate table over HTTP: terms, rates in force, versions; all rates of a request or none; one tenant's alone."""

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.integration.api.conftest import World
from tests.support.signed import Signed

TERMS: dict[str, Any] = {"base": "USD", "counter": "THB", "spread_basis_points": 50, "rate_max_age_s": 600}


@pytest.fixture
async def desk(world: World) -> Signed:
    """A client whose key names RATES, with terms for one pair."""
    client = await world.other(operations=["RATES"])
    assert (await client.post("/v1/exchange-pairs", TERMS)).status_code == 201
    return client


def told(rate: str = "35.1275", **changed: Any) -> dict[str, Any]:
    return {"base": "USD", "counter": "THB", "rate": rate, "source": "feed-a"} | changed


async def record(desk: Signed, *rates: dict[str, Any]) -> Any:
    return await desk.post("/v1/rates", {"rates": list(rates)})


async def in_force(desk: Signed) -> dict[str, str]:
    items = (await desk.get("/v1/rates")).json()["items"]
    return {f"{item['base']}/{item['counter']}": item["rate"] for item in items}


async def test_a_rate_is_kept_with_its_source_its_time_and_who_told_it(desk: Signed) -> None:
    answer = await record(desk, told(observed_at="2026-03-01T07:00:00+07:00"))
    assert answer.status_code == 201
    [made] = answer.json()["items"]
    assert (made["version"], made["rate"], made["source"]) == (1, "35.1275", "feed-a")
    assert made["observed_at"].startswith("2026-03-01T00:00:00")
    assert made["recorded_by"] == f"key:{desk.key_id}"
    assert await in_force(desk) == {"USD/THB": "35.1275"}


async def test_the_rate_observed_last_is_in_force_however_late_others_come(desk: Signed) -> None:
    await record(desk, told("35", observed_at="2026-03-01T10:00:00Z"), told("36", observed_at="2026-03-01T11:00:00Z"))
    await record(desk, told("34", observed_at="2026-03-01T09:00:00Z"))
    assert await in_force(desk) == {"USD/THB": "36"}
    # A correction of the same moment stands in for what was told first.
    await record(desk, told("36.5", observed_at="2026-03-01T11:00:00Z"))
    assert await in_force(desk) == {"USD/THB": "36.5"}


async def test_a_repeat_records_nothing_and_versions_are_read_page_by_page(desk: Signed) -> None:
    same = told(observed_at="2026-03-01T10:00:00Z")
    assert len((await record(desk, same, same)).json()["items"]) == 1
    again = await record(desk, same, told("35.12750", observed_at="2026-03-01T17:00:00+07:00"))
    assert (again.status_code, again.json()["items"]) == (200, [])
    await record(desk, *(told(str(rate), observed_at=f"2026-03-01T10:00:0{rate}Z") for rate in (1, 2, 3, 4)))
    seen, cursor = [], None
    for _ in range(3):
        query = {"pair": "USD/THB", "limit": "2"} | ({} if cursor is None else {"cursor": cursor})
        page = (await desk.get("/v1/rates", **query)).json()
        seen += [item["version"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert (seen, cursor) == ([5, 4, 3, 2, 1], None)
    assert (await desk.get("/v1/rates", pair="USD/THB", cursor="?")).json()["code"] == "cursor_malformed"


@pytest.mark.parametrize(
    ("bad", "code", "field"),
    [
        (told("0.00"), "rate_malformed", "rates.1.rate"),
        (told("123456789012.1234567"), "rate_malformed", "rates.1.rate"),
        (told(base="EUR"), "pair_unknown", "rates.1.base"),
        (told(base="THB", counter="USD"), "pair_inverted", "rates.1.base"),
        (told(observed_at="2100-01-01T00:00:00Z"), "rate_from_future", "rates.1.observed_at"),
        (told("35,1"), "invalid_request", "rates.1.rate"),
        (told(35.1), "invalid_request", "rates.1.rate"),  # type: ignore[arg-type]
        (told(observed_at="2026-03-01T10:00:00"), "invalid_request", "rates.1.observed_at"),
        (told(source=" "), "invalid_request", "rates.1.source"),
    ],
)
async def test_one_bad_rate_refuses_all_and_is_named(
    world: World, desk: Signed, bad: dict[str, Any], code: str, field: str
) -> None:
    before = await world.contents()
    answer = await record(desk, told(), bad, told("36"))
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)
    assert await world.contents() == before


async def test_terms_are_versions_and_a_pair_has_one_direction(desk: Signed) -> None:
    assert (await desk.post("/v1/exchange-pairs", TERMS)).status_code == 200
    changed = await desk.post("/v1/exchange-pairs", TERMS | {"spread_basis_points": 75})
    assert (changed.status_code, changed.json()["version"]) == (201, 2)
    inverse = await desk.post("/v1/exchange-pairs", TERMS | {"base": "THB", "counter": "USD"})
    assert inverse.json()["code"] == "pair_inverted"
    unknown = await desk.post("/v1/exchange-pairs", TERMS | {"counter": "XXX"})
    assert (unknown.json()["code"], unknown.json()["field"]) == ("unknown_currency", "counter")
    same = await desk.post("/v1/exchange-pairs", TERMS | {"counter": "USD"})
    assert same.json()["code"] == "invalid_request"
    [pair] = (await desk.get("/v1/exchange-pairs")).json()["items"]
    assert (pair["version"], pair["pair"]["spread_basis_points"], pair["pair"]["quote_ttl_s"]) == (2, 75, 30)


async def test_rates_told_at_once_each_get_a_version_of_their_own(desk: Signed) -> None:
    answers = await asyncio.gather(*(record(desk, told(f"35.{n:02d}1"), told(f"36.{n:02d}1")) for n in range(10)))
    versions = sorted(item["version"] for answer in answers for item in answer.json()["items"])
    assert versions == list(range(1, 21))


async def test_what_was_recorded_is_never_edited_or_deleted(world: World, desk: Signed) -> None:
    await record(desk, told())
    for text in ("UPDATE fleet.exchange_rates SET units = 1", "DELETE FROM fleet.exchange_rates"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await world.admin.execute(text)
    with pytest.raises(asyncpg.RestrictViolationError):
        await world.admin.execute("DELETE FROM fleet.exchange_pairs")


async def test_rates_are_set_and_seen_by_a_key_that_names_them_alone(world: World, desk: Signed) -> None:
    for answer in (await record(world.api, told()), await world.api.get("/v1/rates")):
        assert (answer.status_code, answer.json()["code"]) == (403, "operation_not_permitted")
