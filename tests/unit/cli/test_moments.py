"""A moment that is typed is the one that is meant: its zone counts, and a bare number is none."""

from datetime import UTC, datetime
from typing import Any

import pytest

from core.services.terms.set_routes import RouteRequest
from fleet.cli import main, routes

COMMANDS = [
    ("routes", "add", "PAYOUT", "THB", "promptpay", "--from"),
    ("fees", "dry-run", "PAYOUT", "100", "--at"),
    ("exposure", "--since"),
    ("webhooks", "redrive", "0" * 32, "--since"),
    ("dlq", "list", "--after"),
    ("dlq", "redrive", "--reason", "x", "--incident", "y", "--before"),
    ("recon", "intents", "--since"),
    ("wallets", "balance", "0" * 32, "--at"),
]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2026-12-01T00:00:00+07:00", datetime(2026, 11, 30, 17, tzinfo=UTC)),
        ("2026-12-01T00:00:00Z", datetime(2026, 12, 1, tzinfo=UTC)),
        ("2026-12-01 06:30", datetime(2026, 12, 1, 6, 30, tzinfo=UTC)),
        ("2026-12-01", datetime(2026, 12, 1, tzinfo=UTC)),
    ],
)
def test_a_route_begins_at_the_moment_in_the_zone_that_was_typed(
    typed: str, meant: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RouteRequest] = []
    monkeypatch.setattr(routes, "_set", lambda _tenant, request, _as_json: asked.append(request))
    assert main(["routes", "add", "PAYOUT", "THB", "promptpay", "--from", typed, "--until", typed]) == 0
    assert (asked[0].valid_from, asked[0].valid_until) == (meant, meant)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: f"{words[0]} {words[1]}")
@pytest.mark.parametrize("typed", ["2026", "1700000000", "yesterday", "20261301"])
def test_what_is_no_moment_is_refused_in_one_line(
    command: tuple[str, ...], typed: str, capsys: pytest.CaptureFixture[Any]
) -> None:
    assert main([*command, typed]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("fleet: usage: Invalid value for")
    assert "it is no moment such as 2026-11-30T17:00:00Z" in printed.err
    assert printed.err.count("\n") == 1
