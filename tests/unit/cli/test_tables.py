"""Tables for people: what a cell shows."""

import orjson
import pytest

from fleet.cli.output import print_fields, print_table


def test_a_list_or_an_object_is_shown_as_json_and_never_as_python(capsys: pytest.CaptureFixture[str]) -> None:
    shares = [{"account": "partner", "basis_points": 5_000, "rest": True}]
    print_fields("fee rule", {"shares": shares, "samples": ()})
    shown = {line.split()[0]: line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[2:]}
    assert {name: orjson.loads(text) for name, text in shown.items()} == {"shares": shares, "samples": []}


def test_a_table_without_rows_says_that_there_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("dead letters", ("id", "rail"), [])
    assert capsys.readouterr().out == "dead letters: none\n"
