"""A bad line is refused by number and code; its neighbours go on."""

from pathlib import Path

import pytest

from fleet.demo.payments_file import COLUMNS, FileRefusedError, PaymentLine, RefusedLine, read_payments

HEADER = ",".join(COLUMNS)
GOOD = "r1,alice,mobile,0812345678,10.50,THB,lunch"


def read(tmp_path: Path, *lines: str, name: str = "payments.csv") -> list[PaymentLine | RefusedLine]:
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return list(read_payments(path))


def test_a_good_line_becomes_a_payment_in_minor_units(tmp_path: Path) -> None:
    assert read(tmp_path, HEADER, GOOD) == [PaymentLine(2, "r1", "alice", "mobile", "0812345678", 1050, "THB", "lunch")]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("r2,alice,mobile", "malformed_line"),
        ('r2,alice,mobile,0812345678,1,THB,"never closed', "malformed_line"),
        ("r2,alice,mobile,0812345678,0,THB,", "amount_not_positive"),
        ("r2,alice,mobile,0812345678,-1,THB,", "amount_not_positive"),
        ("r2,alice,mobile,0812345678,1.001,THB,", "amount_over_precise"),
        ("r2,alice,mobile,0812345678,99999999999999,THB,", "amount_too_large"),
        ("r2,alice,mobile,0812345678,ten,THB,", "amount_malformed"),
        ("r2,alice,mobile,0812345678,1,XXX,", "unknown_currency"),
        ("r2,,mobile,0812345678,1,THB,", "field_missing"),
        (f"r2,{'w' * 65},mobile,0812345678,1,THB,", "field_too_long"),
        (GOOD, "duplicate_reference"),
    ],
)
def test_a_bad_line_is_refused_and_the_lines_around_it_are_read(tmp_path: Path, line: str, code: str) -> None:
    first, refused, last = read(tmp_path, HEADER, GOOD, line, GOOD.replace("r1", "r3"))
    assert isinstance(first, PaymentLine)
    assert isinstance(last, PaymentLine)
    assert isinstance(refused, RefusedLine)
    assert (refused.line, refused.code) == (3, code)


def test_ndjson_is_read_and_a_number_as_amount_is_refused(tmp_path: Path) -> None:
    good = '{"reference":"a","wallet":"w","payee_type":"mobile","payee":"0812345678","amount":"1.5","currency":"THB"}'
    lines = read(tmp_path, good, "not json", "[1]", good.replace('"1.5"', "1.5"), name="payments.ndjson")
    assert isinstance(lines[0], PaymentLine)
    assert [line.code for line in lines[1:] if isinstance(line, RefusedLine)] == ["malformed_line"] * 3


def test_a_spreadsheets_byte_order_mark_and_windows_line_ends_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_bytes(f"\ufeff{HEADER}\r\n{GOOD}\r\n".encode())
    assert [type(line) for line in read_payments(path)] == [PaymentLine]


@pytest.mark.parametrize("content", [b"", b"a,b,c\n", b"\xff\xfe\x00"])
def test_a_file_without_a_usable_header_is_refused_as_a_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "payments.csv"
    path.write_bytes(content)
    with pytest.raises(FileRefusedError):
        list(read_payments(path))


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileRefusedError, match=r"absent\.csv"):
        list(read_payments(tmp_path / "absent.csv"))
