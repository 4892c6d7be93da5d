"""Columns and moments travel as the driver's own codecs carry them; what does not fit is refused before it is sent."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.store.codecs import teach
from core.store.database import Database
from fleet.stack.provision import RoleUrls
from schemas.ids import mint_id

_LONG, _SHORT = 2**63, 2**31
_TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
_VALUES = {
    "uuid": st.uuids(),
    "text": _TEXTS | st.sampled_from(["", "NULL", '{"a,b"}', "\\", "ที่ ❤"]),
    "bytea": st.binary() | st.binary().map(bytearray),
    "bigint": st.integers(-_LONG, _LONG - 1) | st.sampled_from([0, -_LONG, _LONG - 1]),
    "integer": st.integers(-_SHORT, _SHORT - 1) | st.sampled_from([0, -_SHORT, _SHORT - 1]),
}
_COLUMNS = st.sampled_from(list(_VALUES)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.lists(_VALUES[kind], max_size=20) | st.lists(st.none() | _VALUES[kind]))
)
_MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.timezones())  # noqa: DTZ001 - their bounds
_DRAWN = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


class _Both(NamedTuple):
    """Connections that carry values in the driver's ways, and in ours."""

    theirs: asyncpg.Connection
    ours: asyncpg.Connection


@pytest.fixture
async def both(fresh_database: RoleUrls) -> AsyncIterator[_Both]:
    """Two connections to one database."""
    made = _Both(await asyncpg.connect(fresh_database.admin), await asyncpg.connect(fresh_database.admin))
    teach(made.ours)
    yield made
    for each in made:
        await each.close()


@_DRAWN
@given(_COLUMNS)
async def test_a_column_is_stored_and_comes_back_as_by_the_drivers_own_codec(
    both: _Both, drawn: tuple[str, list[Any]]
) -> None:
    kind, column = drawn
    sent = f"SELECT array_send($1::{kind}[]), $1::{kind}[]::text"
    assert await both.ours.fetchrow(sent, column) == await both.theirs.fetchrow(sent, column)
    read = [await each.fetchval(f"SELECT $1::{kind}[]", column) for each in both]
    assert read == [column, column]
    assert {type(each) for each in read[0]} == {type(each) for each in read[1]}


@_DRAWN
@given(st.lists(_MOMENTS, min_size=1))
async def test_moments_are_stored_and_come_back_as_by_the_drivers_own_codec(
    both: _Both, moments: list[datetime]
) -> None:
    sent = "SELECT $1::timestamptz, $1::timestamptz::text, $2::timestamptz[]"
    assert await both.ours.fetchrow(sent, moments[0], moments) == await both.theirs.fetchrow(sent, moments[0], moments)
    in_utc = [each.astimezone(UTC) for each in moments]
    assert await both.ours.fetchval("SELECT $1::timestamptz[]", moments) == in_utc


@pytest.mark.parametrize("moment", [datetime.max, datetime.min])  # noqa: DTZ901 - what the driver makes of infinity
async def test_moments_without_end_come_back_as_the_driver_gives_them(both: _Both, moment: datetime) -> None:
    text = "SELECT $1::timestamptz, $1::timestamptz::text"
    told = await both.ours.fetchrow(text, moment)
    assert told is not None
    assert told == await both.theirs.fetchrow(text, moment)
    assert told[0] == moment
    assert told[1].endswith("infinity")


async def test_what_is_no_list_but_has_a_length_is_a_column_too(both: _Both) -> None:
    for column in ((1, 2), {1: "", 2: ""}.keys(), frozenset({1, 2})):
        assert sorted(await both.ours.fetchval("SELECT $1::bigint[]", column)) == [1, 2]
    assert await both.ours.fetchval("SELECT $1::bigint[]", None) is None


async def test_ids_and_bytes_of_each_kind_and_members_of_enumerations_are_values_too(both: _Both) -> None:
    class Word(StrEnum):
        YES = "yes"

    class Number(IntEnum):
        SEVEN = 7

    minted, theirs = mint_id(1), await both.theirs.fetchval("SELECT gen_random_uuid()")
    assert await both.ours.fetchval("SELECT $1::uuid[]", [minted, theirs, str(minted)]) == [minted, theirs, minted]
    assert await both.ours.fetchval("SELECT $1::bytea[]", [memoryview(b"a"), bytearray(b"b")]) == [b"a", b"b"]
    assert await both.ours.fetchval("SELECT $1::text[]", [Word.YES, None]) == ["yes", None]
    assert await both.ours.fetchval("SELECT $1::integer[]", [Number.SEVEN, True]) == [7, 1]


async def test_arrays_within_arrays_are_read_and_not_sent(both: _Both) -> None:
    assert await both.ours.fetchval("SELECT ARRAY[[[1, 2], [3, NULL]], [[5, 6], [7, 8]]]") == [
        [[1, 2], [3, None]], [[5, 6], [7, 8]],
    ]  # fmt: skip
    with pytest.raises(asyncpg.DataError, match="index 0"):
        await both.ours.fetchval("SELECT $1::bigint[]", [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bigint", _LONG),
        ("bigint", -_LONG - 1),
        ("integer", _SHORT),
        ("bigint", "1"),
        # The driver takes the whole part of these.
        ("bigint", 1.5),
        ("bigint", Decimal(1)),
        ("uuid", "no id"),
        ("uuid", 1),
        ("text", 1),
        ("text", b"1"),
        ("text", "\ud800"),
        ("bytea", "1"),
        ("bytea", 1),
        ("bytea", [1]),
    ],
)
async def test_an_element_that_does_not_fit_is_refused_with_its_place(both: _Both, kind: str, value: Any) -> None:
    good = {"bigint": 1, "integer": 1, "uuid": uuid4(), "text": "a", "bytea": b"a"}[kind]
    with pytest.raises(asyncpg.DataError, match=r"query argument \$1: .*index 2"):
        await both.ours.fetchval(f"SELECT $1::{kind}[]", [good, None, value])
    with pytest.raises(asyncpg.DataError, match=r"query argument \$1: .*index 1"):
        await both.ours.fetchval(f"SELECT $1::{kind}[]", [good, value])


async def test_each_connection_of_a_pool_refuses_a_fraction_of_a_minor_unit(fresh_database: RoleUrls) -> None:
    database = await Database.connect(fresh_database.app, min_size=2)
    async with database.acquire() as first, database.acquire() as second:
        for connection in (first, second):
            with pytest.raises(asyncpg.DataError, match="index 0"):
                await connection.fetchval("SELECT $1::bigint[]", [0.5])
    await database.close()


@pytest.mark.parametrize("given_instead", ["ab", b"ab", {"a": "b"}, 7, iter(["a"]), UUID(int=1)])
async def test_what_is_no_column_is_refused(both: _Both, given_instead: Any) -> None:
    with pytest.raises(asyncpg.DataError, match=r"query argument \$1: .*column of values expected"):
        await both.ours.fetchval("SELECT $1::text[]", given_instead)


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        (datetime(2026, 3, 1), "without its zone"),  # noqa: DTZ001 - refused
        (date(2026, 3, 1), "tzinfo"),
        ("2026-03-01", "tzinfo"),
        (7, "tzinfo"),
    ],
)
async def test_a_moment_without_its_zone_is_refused(both: _Both, moment: Any, why: str) -> None:
    with pytest.raises(asyncpg.DataError, match=rf"query argument \$1: .*{why}"):
        await both.ours.fetchval("SELECT $1::timestamptz", moment)
    assert await both.ours.fetchval("SELECT $1::timestamptz", datetime(2026, 3, 1, tzinfo=UTC)) is not None


async def test_a_moment_is_the_same_in_each_zone(both: _Both) -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=7)))
    read = await both.ours.fetchval("SELECT $1::timestamptz", moment)
    assert (read, read.tzinfo) == (moment, UTC)
