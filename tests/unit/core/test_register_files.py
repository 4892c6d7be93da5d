"""Registers read out of files: each column by the mapping, nothing guessed, wrong lines refused by their number."""

import tomllib
from datetime import UTC, date, datetime, time, timedelta
from importlib.resources import files
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.domain.register_files import FileRefusedError, RefusedLine, looked_at, read_register
from core.domain.register_records import COLUMNS, PlainLines
from core.domain.registers import BusinessDays
from schemas.register_mapping import RegisterMapping
from schemas.registers import RegisterLine


def shipped(provider: str) -> RegisterMapping:
    text = files("core.services.recon").joinpath(f"mappings/{provider}.toml").read_text(encoding="utf-8")
    return RegisterMapping.model_validate(tomllib.loads(text))


def read(provider: str, text: str) -> list[RegisterLine | RefusedLine]:
    return read_by(shipped(provider), text)


def read_by(mapping: RegisterMapping, text: str) -> list[RegisterLine | RefusedLine]:
    """Read lines; each record has to be a line as the contract wants it."""
    found = read_register(mapping, text.splitlines(keepends=True))
    return [x if isinstance(x, RefusedLine) else RegisterLine(**dict(zip(COLUMNS, x, strict=True))) for x in found]


def test_the_file_of_ipps_is_read() -> None:
    found = read(
        "ipps",
        "\ufeffPSP Transaction Id,Client Reference,Type,Amount,Fee,Status,Transaction Time\n"
        'PX1,REF-1,TRANSFER,"1,234.56",0.00,SUCCEEDED,21/11/2026 23:59:59\n'
        "QX2,REF-2,QR_PAYMENT,20,1.50,REFUNDED,22/11/2026 00:00:00\n",
    )
    told = [x.model_dump(mode="json", exclude={"currency"}) for x in found if isinstance(x, RegisterLine)]
    assert told == [
        {
            "line": 2, "provider_ref": "PX1", "our_ref": "REF-1", "operation": "PAYMENT", "direction": "OUT",
            "amount_minor": 123_456, "fee_minor": 0, "status": "SETTLED", "at": "2026-11-21T23:59:59+07:00",
        },
        {
            "line": 3, "provider_ref": "QX2", "our_ref": "REF-2", "operation": "PAYMENT", "direction": "IN",
            "amount_minor": 2_000, "fee_minor": 150, "status": "RETURNED", "at": "2026-11-22T00:00:00+07:00",
        },
    ]  # fmt: skip


def test_the_file_of_qp_is_read_out_of_its_encoding_up_to_its_total() -> None:
    text = (
        "Реестр операций\nза 21.11.2026\n"  # noqa: RUF001
        "ID операции;Номер заказа;Тип;Сумма;Комиссия;Статус;Дата\n"
        "T1;R1;Выплата;1 000,05;5,25;Исполнена;21.11.2026 10:00:00\n"
        "Итого;;;1 000,05;;;\n;\n"
    ).encode("cp1251")
    mapping = shipped("qp")
    (line,) = read_by(mapping, text.decode(mapping.encoding))
    assert isinstance(line, RegisterLine)
    assert (line.line, line.amount_minor, line.fee_minor, line.direction) == (4, 100_005, 525, "OUT")


def test_a_banks_sign_says_the_direction() -> None:
    header = "Bank Reference;End To End Id;Amount;Currency;Booking Date\n"
    found = read("bank", header + "B1;E1;-1.000,50;THB;2026-11-20\nB2;;20,00;THB;2026-11-20\n")
    assert [(x.direction, x.amount_minor, x.fee_minor) for x in found if isinstance(x, RegisterLine)] == [
        ("OUT", 100_050, None),
        ("IN", 2_000, None),
    ]


HEADER = "PSP Transaction Id,Client Reference,Type,Amount,Fee,Status,Transaction Time\n"
GOOD = "PX1,REF-1,TRANSFER,1.00,0.00,SUCCEEDED,21/11/2026 10:00:00\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("PX1,REF-1,TRANSFER,1.005,0.00,SUCCEEDED,21/11/2026 10:00:00", "amount"),
        ("PX1,REF-1,TRANSFER,one,0.00,SUCCEEDED,21/11/2026 10:00:00", "amount"),
        ("PX1,REF-1,TRANSFER,-1.00,0.00,SUCCEEDED,21/11/2026 10:00:00", "below zero"),
        ("PX1,REF-1,GIFT,1.00,0.00,SUCCEEDED,21/11/2026 10:00:00", "direction"),
        ("PX1,REF-1,TRANSFER,1.00,0.00,PERHAPS,21/11/2026 10:00:00", "status"),
        ("PX1,REF-1,TRANSFER,1.00,0.00,SUCCEEDED,2026-11-21", "at"),
        (",,TRANSFER,1.00,0.00,SUCCEEDED,21/11/2026 10:00:00", "name"),
        ("PX 1,REF-1,TRANSFER,1.00,0.00,SUCCEEDED,21/11/2026 10:00:00", "provider_ref"),
        ("PX1,REF-1,TRANSFER", "3 cells"),
    ],
)
def test_a_wrong_line_is_refused_by_its_number_and_the_others_are_read(line: str, why: str) -> None:
    first, wrong, last = read("ipps", HEADER + GOOD + line + "\n" + GOOD)
    assert isinstance(wrong, RefusedLine)
    assert wrong.number == 3
    assert why in wrong.reason
    assert isinstance(first, RegisterLine)
    assert isinstance(last, RegisterLine)
    assert last.line == 4


def test_a_file_without_a_column_of_the_mapping_is_refused_whole() -> None:
    with pytest.raises(FileRefusedError, match="the header lacks Fee"):
        read("ipps", HEADER.replace(",Fee", "") + GOOD)


def test_a_mapping_that_leaves_something_out_is_refused() -> None:
    good = {"rail": "promptpay", "provider_account": "a", "amount": {"column": "A"}, "at": {"column": "T"}}
    for missing in ({"currency": {"const": "THB"}, "direction": {"const": "IN"}}, {"currency": {"const": "THB"}}):
        with pytest.raises(ValidationError):
            RegisterMapping.model_validate(good | missing)


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.sampled_from(["UTC", "Asia/Bangkok", "Europe/Moscow"]))
def test_days_follow_each_other_without_a_gap(day: date, zone: str) -> None:
    plain = BusinessDays(zone)
    begin, end = plain.window(day)
    assert plain.day_of(begin) == plain.day_of(end - timedelta(seconds=1)) == day
    assert plain.window(plain.following(day))[0] == end
    assert plain.last_closed(end) == day
    cut = BusinessDays(zone, (begin + timedelta(hours=8)).time())
    following = cut.following(day)
    opened, closed = cut.window(following)
    assert cut.day_of(opened) == cut.day_of(closed - timedelta(seconds=1)) == following
    assert cut.is_open(following)
    assert cut.day_of(closed) == cut.following(following)


@given(
    st.sampled_from(["Europe/London", "America/Havana", "Africa/Cairo", "Asia/Beirut", "Australia/Lord_Howe"]),
    st.one_of(st.none(), st.times()),
    st.integers(0, 365 * 86_400).map(lambda second: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)),
)
@example("Africa/Cairo", time(0, 30), datetime(2026, 4, 23, 22, 10, tzinfo=UTC))  # 00:30 of a Friday never comes
@example("Africa/Cairo", time(23, 30), datetime(2026, 10, 29, 21, 10, tzinfo=UTC))  # 23:30 of a Thursday comes again
def test_each_moment_is_in_the_window_of_its_day_where_clocks_are_put(
    zone: str, cut_off: time | None, moment: datetime
) -> None:
    days = BusinessDays(zone, cut_off)
    begin, end = days.window(days.day_of(moment))
    assert begin <= moment < end


CELLS = {
    "ipps": {
        "PSP Transaction Id": ["PX1", "PX2", "", "P X", "é", "x" * 65],
        "Client Reference": ["REF-1", "REF-3", "", " REF-2 ", "a\tb"],
        "Type": ["TRANSFER", "QR_PAYMENT", "GIFT", ""],
        "Amount": ["1.00", "1,234.5", "1,234.56", "-1.00", "-0.00", "+1.00", "0", ".5", "7.", "²", "9" * 16, "1_0"],
        "Fee": ["0.00", "-1.00", "1", "x", ""],
        "Status": ["SUCCEEDED", "REFUNDED", "PERHAPS"],
        "Transaction Time": ["21/11/2026 10:00:00", " 21/11/2026 10:00:01", "31/11/2026 10:00:00", ""],
    },
    "bank": {
        "Bank Reference": ["B1", ""],
        "End To End Id": ["E1", ""],
        "Amount": ["-1.000,50", "20,00", "-0,00", "20.00", "\u22125,00", "--5,00", "1,005"],
        "Currency": ["THB", "JPY", "KWD", "XAU", "thb", ""],
        "Booking Date": ["2026-11-20", "2026-1-2", "20/11/2026"],
    },
}


@pytest.mark.parametrize("provider", CELLS)
def test_a_line_at_first_sight_is_what_a_closer_look_finds(provider: str) -> None:
    mapping, header = shipped(provider), [*CELLS[provider]]
    plain, draw, at_sight = PlainLines(mapping, header), Random(7), 0
    for _ in range(6_000):
        cells = [draw.choice(CELLS[provider][name]) for name in header]
        swift, closer = plain.read(2, cells), looked_at(mapping, header, 2, cells)
        assert swift is None or swift == closer, cells
        at_sight += swift is not None
    assert at_sight > 30
