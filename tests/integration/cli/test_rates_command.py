"""`fleet rates` on a database of its own: terms, imports that are all or nothing, and what is in force."""

from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from fleet.cli.rate_files import read_rates
from fleet.stack.provision import RoleUrls
from tests.support.commands import Done, Fleet


@pytest.fixture
async def tenant(
    fleet: Fleet, fresh_database: RoleUrls, admin_connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A tenant with terms for dollars in baht and euros in dollars."""
    monkeypatch.setenv("DATABASE_WORKER_URL", fresh_database.worker)
    tenant = uuid4()
    await admin_connection.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'shop')", tenant)
    for pair in ("USD/THB", "eur/usd"):
        terms = ("--spread-bp", "50", "--max-age-s", "600", "--tenant", str(tenant), "--json")
        assert (await fleet("rates", "pair", pair, *terms)).document[0]["version"] == 1
    return str(tenant)


def refused(done: Done) -> list[str]:
    """Return the lines about lines; the last one is about the file."""
    assert (done.code, done.out) == (2, ""), done
    *lines, last = done.err.splitlines()
    assert last.startswith("fleet: file_refused: ")
    return lines


async def test_a_csv_file_is_imported_and_a_repeat_records_nothing(fleet: Fleet, tenant: str, tmp_path: Path) -> None:
    file = tmp_path / "rates.csv"
    file.write_text(
        "base,counter,rate,source,observed_at\n"
        "USD,THB,35.1275,central-bank,2026-03-01T07:00:00+07:00\n"
        "\n"
        'EUR,USD,1.0812,"a feed, of ours",2026-03-01T07:00:00+07:00\n'
    )
    first = await fleet("rates", "import", str(file), "--tenant", tenant, "--json")
    assert first.document == {"recorded": 2, "repeated": 0}
    assert "recorded before  2" in (await fleet("rates", "import", str(file), "--tenant", tenant)).out
    listed = (await fleet("rates", "list", "--tenant", tenant, "--json")).document["items"]
    assert [(r["base"], r["rate"], r["source"], r["recorded_by"]) for r in listed] == [
        ("EUR", "1.0812", "a feed, of ours", "fleet-cli"),
        ("USD", "35.1275", "central-bank", "fleet-cli"),
    ]
    assert "35.1275" in (await fleet("rates", "list", "usd/thb", "--tenant", tenant)).out
    assert "EUR/USD" in (await fleet("rates", "pairs", "--tenant", tenant)).out


async def test_lines_of_json_are_imported_with_the_source_of_the_command(
    fleet: Fleet, tenant: str, tmp_path: Path
) -> None:
    file = tmp_path / "rates.ndjson"
    file.write_text(
        '{"base": "USD", "counter": "THB", "rate": "35.2"}\n\n{"base": "EUR", "counter": "USD", "rate": "1.1"}\n'
    )
    done = await fleet("rates", "import", str(file), "--source", "desk", "--tenant", tenant, "--json")
    assert done.document == {"recorded": 2, "repeated": 0}
    listed = (await fleet("rates", "list", "--tenant", tenant, "--json")).document["items"]
    assert {rate["source"] for rate in listed} == {"desk"}


async def test_every_bad_line_is_named_with_its_number_and_nothing_is_recorded(
    fleet: Fleet, tenant: str, tmp_path: Path
) -> None:
    file = tmp_path / "rates.csv"
    good = "USD,THB,35.1,a\n"
    file.write_text(f"base,counter,rate,source\n{good}USD,THB,thirty,a\nUSD,THB,35\n{good}USD,THB,,a\n")
    lines = refused(await fleet("rates", "import", str(file), "--tenant", tenant))
    assert [line.split(": ")[:2] for line in lines] == [
        ["line 3", "invalid_field"], ["line 4", "line_malformed"], ["line 6", "invalid_field"]
    ]  # fmt: skip
    # What only the core can know is told by line as well.
    file.write_text(f"base,counter,rate,source\n{good}SGD,THB,26,a\n{good}THB,USD,0.03,a\nUSD,THB,0,a\n")
    lines = refused(await fleet("rates", "import", str(file), "--tenant", tenant))
    assert [line.split(": ")[:2] for line in lines] == [
        ["line 3", "pair_unknown"], ["line 5", "pair_inverted"], ["line 6", "rate_malformed"]
    ]  # fmt: skip
    assert "fleet rates pair" in lines[0]
    assert "USD/THB" in lines[1]
    assert (await fleet("rates", "list", "--tenant", tenant, "--json")).document["items"] == []


async def test_a_file_that_holds_no_rates_is_refused(fleet: Fleet, tenant: str, tmp_path: Path) -> None:
    file = tmp_path / "rates.csv"
    absent = await fleet("rates", "import", str(file))
    assert absent.must_fail(2, "file_unreadable").endswith(f"{file}: No such file or directory\n")
    file.write_text("currency,price\nUSD,35\n")
    (await fleet("rates", "import", str(file))).must_fail(2, "file_unreadable")
    file.write_text("base,counter,rate\n")
    (await fleet("rates", "import", str(file))).must_fail(2, "file_refused")
    (await fleet("rates", "pair", "USDTHB", "--spread-bp", "1", "--max-age-s", "1")).must_fail(2, "pair_malformed")
    (await fleet("rates", "list", "US/THB")).must_fail(2, "pair_malformed")
    inverse = await fleet("rates", "pair", "THB/USD", "--spread-bp", "1", "--max-age-s", "1", "--tenant", tenant)
    inverse.must_fail(3, "pair_inverted")


def test_a_line_that_is_no_json_object_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rates.jsonl"
    file.write_text('{"base": "USD"\n[1]\n{"base": "USD", "counter": "THB", "rate": 35.1}\n{"surprise": 1}\n')
    read = read_rates(str(file), "desk")
    assert read.rates == []
    assert [(line.number, line.code) for line in read.bad] == [
        (1, "line_malformed"), (2, "line_malformed"), (3, "invalid_field"), (4, "invalid_field")
    ]  # fmt: skip
