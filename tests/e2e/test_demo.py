"""What a newcomer types first, as processes of their own: the demo."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.demo.example import rows
from fleet.demo.payments_file import COLUMNS

ROOT = Path(__file__).parents[2]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleet.demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_the_shipped_file_is_what_its_generator_writes() -> None:
    lines = (ROOT / "examples" / "payments.csv").read_text().splitlines()
    assert [line.split(",") for line in lines] == [list(row) for row in rows()]


@pytest.mark.timeout(200)
def test_the_demo_pays_a_file_and_proves_it(tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_text(
        "\n".join(
            (
                ",".join(COLUMNS),
                "a1,alice,mobile,0812345678,10.50,THB,lunch",
                "a2,alice,national_id,1101700230708,20.00,THB,",
                "a3,alice,ewallet,004999000288505,30.00,THB,",
                "a4,alice,mobile,0899990001,40.00,THB,nobody",
                "a5,alice,mobile,0899990002,50.00,THB,the answer is lost",
                "a6,alice,mobile,0812345678,1500000.00,THB,too much",
                "a1,alice,mobile,0812345678,10.50,THB,lunch",
                "broken,line",
                "a7,alice,mobile,0812345678,0,THB,",
            )
        )
    )
    done = demo("--file", str(path), "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["accepted"] == 6
    assert report["settled"] == 4
    assert report["failed"] == {"insufficient_funds": 1, "payee_not_found": 1}
    assert (report["unresolved"], report["dead_lettered"]) == (0, 0)
    assert [(line["line"], line["code"]) for line in report["refused_lines"]] == [
        (8, "duplicate_reference"),
        (9, "malformed_line"),
        (10, "amount_not_positive"),
    ]
    assert report["ledger"] == {"balanced": True, "holds_match_pending": True}
    assert report["provider_book"] == {"paid_twice": 0, "paid_not_settled": 0, "settled_not_paid": 0}


@pytest.mark.parametrize("name", ["absent.csv", "header.csv"])
def test_a_file_that_cannot_be_read_is_refused_before_anything_starts(tmp_path: Path, name: str) -> None:
    (tmp_path / "header.csv").write_text("a,b\n1,2\n")
    done = demo("--file", str(tmp_path / name))
    assert done.returncode == 2
    assert done.stderr.startswith("demo: file_refused: ")
