"""`fleet recon` with registers, on a real database: taken out of a file, compared, shown, reported."""

from datetime import datetime
from pathlib import Path

import asyncpg
import pytest

from fleet.cli.output import ExitCode
from fleet.stack.provision import RoleUrls
from tests.support.commands import Fleet

DAY = "2026-11-20"
FILE = (
    "PSP Transaction Id,Client Reference,Type,Amount,Fee,Status,Transaction Time\n"
    'PX1,=cmd(),TRANSFER,"1,234.56",0.00,SUCCEEDED,20/11/2026 10:00:00\n'
    "QX2,REF-2,QR_PAYMENT,20.00,1.50,SUCCEEDED,20/11/2026 11:00:00\n"
    "QX2,REF-2,QR_PAYMENT,20.00,1.50,SUCCEEDED,20/11/2026 11:00:00\n"
)


@pytest.fixture
def register(fleet: Fleet, fresh_database: RoleUrls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DATABASE_WORKER_URL", fresh_database.worker)
    file = tmp_path / "settlement.csv"
    file.write_text(FILE, encoding="utf-8")
    return file


async def test_a_file_is_taken_compared_shown_and_reported(
    fleet: Fleet, register: Path, tmp_path: Path, fresh_database: RoleUrls
) -> None:
    taking = ("recon", "import", str(register), "--provider", "ipps")
    dry = await fleet(*taking, "--json")
    assert (dry.code, dry.document["lines"], dry.document["days"]) == (ExitCode.DONE, 3, [DAY])
    assert (dry.document["out_THB_minor"], dry.document["in_THB_minor"]) == (123_456, 4_000)
    assert (await fleet("recon", "registers", "--json")).document == [], "a dry run keeps nothing"
    kept = (await fleet(*taking, "--apply", "--json")).document
    assert (kept["state"], kept["lines"], kept["business_day"], kept["source"]) == ("COMPLETE", 3, DAY, "IMPORTED")
    assert (await fleet(*taking, "--apply", "--json")).document["id"] == kept["id"], (
        "the same file is the same register"
    )
    copy = tmp_path / "copy.csv"
    assert (await fleet("recon", "original", kept["id"], "--out", str(copy))).code == ExitCode.DONE
    assert copy.read_bytes() == FILE.encode()

    ran = await fleet("recon", "run", "--rail", "promptpay", "--day", DAY, "--json")
    assert ran.code == ExitCode.CHECK_FAILED
    (run,) = ran.document
    counts = {each["match"]: each["count"] for each in run["tallies"]}
    assert (counts, run["breaks"]) == ({"missing_here": 2, "duplicate": 1}, 3)
    (shown,) = (await fleet("recon", "show", "--day", DAY, "--json")).document
    assert (shown["run"]["id"], shown["carried"]) == (run["id"], [])
    breaks = (await fleet("recon", "breaks", "--day", DAY, "--rail", "promptpay", "--json")).document
    assert sorted(each["kind"] for each in breaks) == [
        "register_duplicate", "register_missing_here", "register_missing_here",
    ]  # fmt: skip
    asked = await fleet("recon", "fetch", "--rail", "promptpay", "--day", DAY)
    assert (asked.code, asked.out.startswith("asked for 1 register(s)")) == (ExitCode.DONE, True)
    await seen_on_that_day(fresh_database)
    await reports(fleet)


async def seen_on_that_day(database: RoleUrls) -> None:
    """A report has the breaks that stood in its days; these were seen in whatever week the test runs."""
    connection = await asyncpg.connect(database.admin)
    await connection.execute("UPDATE fleet.breaks SET first_seen_at = $1", datetime.fromisoformat(f"{DAY}T12:00Z"))
    await connection.close()


async def reports(fleet: Fleet) -> None:
    """The day's and the week's report in every form."""
    page = (await fleet("recon", "report", "--format", "html", "--week", "2026-W47")).out
    assert page.startswith("<!doctype html>")
    assert "register_duplicate" in page
    table = (await fleet("recon", "report", "--format", "csv", "--week", "2026-W47")).out
    assert [line.split(",")[0] for line in table.splitlines()] == ["record", "run", "tally", "tally", *["break"] * 3]
    assert "'=cmd()" in table, "what a spreadsheet would run is text"
    document = (await fleet("recon", "report", "--format", "json", "--day", DAY)).document
    assert [each["business_day"] for each in document["runs"]] == [DAY]
    (await fleet("recon", "report", "--format", "csv", "--week", "47")).must_fail(ExitCode.WRONG_INPUT, "invalid_field")


async def test_a_file_with_a_wrong_line_is_refused_by_its_number_and_none_of_it_is_kept(
    fleet: Fleet, register: Path
) -> None:
    with register.open("a") as more:
        more.write("PX4,REF-4,TRANSFER,1.005,0.00,SUCCEEDED,20/11/2026 12:00:00\n")
    done = await fleet("recon", "import", str(register), "--provider", "ipps", "--apply", "--json")
    assert (done.code, [each["line"] for each in done.document["refused"]]) == (ExitCode.CHECK_FAILED, [5])
    assert (await fleet("recon", "registers", "--json")).document == []
    unknown = await fleet("recon", "import", str(register), "--provider", "nobody")
    unknown.must_fail(ExitCode.WRONG_INPUT, "mapping_missing")
    missing = await fleet("recon", "run", "--rail", "promptpay", "--day", DAY)
    missing.must_fail(ExitCode.REFUSED, "not_found")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_every_shell_gets_its_completion(fleet: Fleet, shell: str) -> None:
    done = await fleet("completion", shell)
    assert done.code == ExitCode.DONE
    assert "_FLEET_COMPLETE" in done.out
