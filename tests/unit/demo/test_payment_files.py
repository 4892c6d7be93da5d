"""A bad line is refused by number and code; its neighbours go on."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
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


def test_of_two_amounts_in_one_object_neither_is_paid(tmp_path: Path) -> None:
    payee = '"wallet":"w","payee_type":"mobile","payee":"0812345678","currency":"THB"'
    lines = read(tmp_path, f'{{"reference":"a",{payee},"amount":"1","amount":"100"}}', name="payments.ndjson")
    told = "'amount' stands twice in one object: keep the one that is meant"
    assert lines == [RefusedLine(1, "malformed_line", told)]


def test_a_line_that_is_too_deep_or_has_a_number_without_end_keeps_no_other_from_being_read(tmp_path: Path) -> None:
    deep, long = f'{{"a":{"[" * 1_005}{"]" * 1_005}}}', f'{{"amount":{"1" * 5_000}}}'
    good = orjson.dumps(dict(zip(COLUMNS, GOOD.split(","), strict=True))).decode()
    *refused, paid = read(tmp_path, deep, long, good, name="payments.ndjson")
    assert [each.code for each in refused if isinstance(each, RefusedLine)] == ["field_missing", "malformed_line"]
    assert isinstance(paid, PaymentLine)


@pytest.mark.parametrize(("field", "told"), [("amount", "a JSON number may lose digits"), ("payee", "must be text")])
def test_what_is_no_text_is_refused_with_its_reason(tmp_path: Path, field: str, told: str) -> None:
    line = dict(zip(COLUMNS, GOOD.split(","), strict=True)) | {field: None}
    (refused,) = read(tmp_path, orjson.dumps(line).decode(), name="payments.ndjson")
    assert isinstance(refused, RefusedLine)
    assert refused.message.endswith(told)


def test_a_spreadsheets_byte_order_mark_and_windows_line_ends_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_bytes(f"\ufeff{HEADER}\r\n{GOOD}\r\n".encode())
    assert [type(line) for line in read_payments(path)] == [PaymentLine]


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b"", "the file is empty; its first line should be reference,wallet"),
        (b"a,b,c\n", "the header lacks reference, wallet"),
        (b"\xff\xfer\x00e\x00f\x00", "save the file as UTF-8"),
        (f"{HEADER},amount\n".encode(), "amount twice"),
        (f"{HEADER}\r{GOOD}\r".encode(), "lines end in"),
        (f'{HEADER},"\n'.encode(), "quotes must close"),
    ],
)
def test_a_file_without_a_usable_header_is_refused_as_a_whole(tmp_path: Path, content: bytes, remedy: str) -> None:
    path = tmp_path / "payments.csv"
    path.write_bytes(content)
    with pytest.raises(FileRefusedError, match=re.escape(remedy)):
        list(read_payments(path))


@pytest.mark.parametrize("name", ["payments.csv", "payments.ndjson"])
def test_a_line_that_is_not_utf8_or_never_ends_costs_only_itself(tmp_path: Path, name: str) -> None:
    if name.endswith(".csv"):
        head, good = f"{HEADER}\n".encode(), GOOD.encode()
    else:
        head, good = b"", orjson.dumps(dict(zip(COLUMNS, GOOD.split(","), strict=True)))
    lines = [good, good.replace(b"r1", b"r2").replace(b"lunch", b"caf\xe9"), b"x" * 200_000, good.replace(b"r1", b"r3")]
    path = tmp_path / name
    path.write_bytes(head + b"\n".join(lines))
    read = list(read_payments(path))
    assert [line.code for line in read if isinstance(line, RefusedLine)] == ["not_utf8", "malformed_line"]
    assert [line.reference for line in read if isinstance(line, PaymentLine)] == ["r1", "r3"]


def test_a_hundred_columns_and_quoted_commas_are_read(tmp_path: Path) -> None:
    more = [f"more_{number}" for number in range(93)]
    header = ",".join([*COLUMNS, *more])
    lines = read(tmp_path, header, GOOD.replace("lunch", '"one, ""two"" and three"') + "," * 93, GOOD)
    assert isinstance(lines[0], PaymentLine)
    assert lines[0].message == 'one, "two" and three'
    assert isinstance(lines[1], RefusedLine)
    assert lines[1].message == "7 columns where the header has 100"


def test_a_pipe_is_read_once_from_its_beginning(tmp_path: Path) -> None:
    pipe = tmp_path / "payments.csv"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as writer:
        writing = writer.submit(pipe.write_text, f"{HEADER}\n{GOOD}\n")
        assert [type(line) for line in read_payments(pipe)] == [PaymentLine]
        writing.result()


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileRefusedError, match=r"absent\.csv: No such file"):
        list(read_payments(tmp_path / "absent.csv"))


def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "payments.csv"
    folder.mkdir()
    with pytest.raises(FileRefusedError, match=r"payments\.csv: Is a directory; name a readable"):
        list(read_payments(folder))
