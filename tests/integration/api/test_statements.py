"""Statements over the real API: whole, exact in every currency, harmless to a spreadsheet."""

import csv
import io
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from core.api.statements import csv_parts, harmless
from core.services.access.keys import Caller
from core.services.wallets import statements
from core.services.wallets.statements import open_statement
from tests.integration.api.conftest import World

FIRST, LAST = datetime.now(UTC) - timedelta(days=2), datetime.now(UTC) + timedelta(days=2)
DAYS = {"from": FIRST.date().isoformat(), "to": LAST.date().isoformat()}


async def moved(world: World, currency: str) -> str:
    """A wallet that got 12,345 minor units and gave 45 of them, with a comment that a spreadsheet would run."""
    made = [
        (await world.api.post("/v1/wallets", {"owner": name, "currency": currency})).json()["id"]
        for name in ("=anna", "ben")
    ]
    fund = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": made[0], "amount_minor": 12_345, "currency": currency}
    give = {"operation": "INTERNAL_P2P", "wallet_id": made[0], "counterparty_wallet_id": made[1],
            "amount_minor": 45, "currency": currency, "comment": "=HYPERLINK(\"http://x\")"}  # fmt: skip
    for key, body in (("fund", fund), ("give", give)):
        answer = await world.api.post("/v1/intents", body, key=f"{key}-{made[0]}")
        assert answer.json()["state"] == "SETTLED", answer.text
    wallet: str = made[0]
    return wallet


async def rows_of(world: World, wallet: str, **query: str) -> list[dict[str, str]]:
    answer = await world.api.get(f"/v1/wallets/{wallet}/statement", **DAYS | {"format": "csv"} | query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text)))


@pytest.mark.parametrize(
    ("currency", "credit", "debit", "closing", "zero"),
    [
        ("THB", "123.45", "0.45", "123.00", "0.00"),
        ("JPY", "12345", "45", "12300", "0"),
        ("KWD", "12.345", "0.045", "12.300", "0.000"),
    ],
)
async def test_a_statement_as_csv_has_each_currencys_decimals(
    world: World, currency: str, credit: str, debit: str, closing: str, zero: str
) -> None:
    rows = await rows_of(world, await moved(world, currency))
    shown = [(r["record"], r["operation"], r["credit"], r["debit"], r["balance"]) for r in rows]
    assert shown == [
        ("opening", "", "", "", zero),
        ("entry", "MANUAL_ADJUSTMENT", credit, "", credit),
        ("entry", "INTERNAL_P2P", "", debit, closing),
        ("total", "INTERNAL_P2P", zero, debit, ""),
        ("total", "MANUAL_ADJUSTMENT", credit, zero, ""),
        ("fees", "", zero, zero, ""),
        ("closing", "", "", "", closing),
    ]
    assert {r["currency"] for r in rows} == {currency}


async def test_nothing_that_others_wrote_is_a_formula(world: World) -> None:
    rows = await rows_of(world, await moved(world, "THB"))
    assert (rows[2]["comment"], rows[2]["from"]) == ('\'=HYPERLINK("http://x")', "'=anna")
    cells = [cell for row in rows for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", " =1", "\r=1", "\n=1"])
def test_a_text_that_would_run_is_quoted(text: str) -> None:
    assert harmless(text) == f"'{text}"
    assert harmless(f"a{text}") == f"a{text}"


async def test_a_statement_as_json_runs_from_opening_to_closing_over_its_pages(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "_PAGE", 2)
    wallet = await world.funded_wallet(1000)
    for n in range(4):
        body = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": n + 1, "currency": "THB"}
        await world.api.post("/v1/intents", body, key=f"more-{n}")
    document: dict[str, Any] = (await world.api.get(f"/v1/wallets/{wallet}/statement", **DAYS)).json()
    balances = [entry["balance_minor"] for entry in document["entries"]]
    assert (document["opening_balance_minor"], balances) == (0, [1000, 1001, 1003, 1006, 1010])
    assert document["closing_balance_minor"] == 1010
    assert document["totals"] == [
        {"operation": "MANUAL_ADJUSTMENT", "entries": 5, "credit_minor": 1010, "debit_minor": 0}
    ]


async def test_days_are_those_of_the_timezone(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        day = datetime.now(ZoneInfo(zone)).date()
        path = f"/v1/wallets/{wallet}/statement"
        for shift, opening, entries in ((0, 0, 1), (-1, 0, 0)):
            asked = (day + timedelta(days=shift)).isoformat()
            document = (await world.api.get(path, **{"from": asked, "to": asked, "tz": zone})).json()
            assert (document["opening_balance_minor"], len(document["entries"])) == (opening, entries), (zone, shift)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"from": "2026-02-02", "to": "2026-02-01"}, "invalid_request"),
        ({"tz": "Mars/Olympus"}, "invalid_request"),
        ({"tz": "localtime"}, "invalid_request"),
        ({"from": "20304000"}, "invalid_request"),
        ({"format": "pdf"}, "invalid_request"),
        ({"from": "2999-01-01", "to": "2999-01-02"}, "moment_not_past"),
    ],
)
async def test_a_period_that_cannot_be_is_refused(world: World, query: dict[str, str], code: str) -> None:
    answer = await world.api.get(f"/v1/wallets/{await world.funded_wallet(1)}/statement", **query)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


# Ten thousand movements of one wallet with another; what the other account stores does not matter here.
_MANY = """
SET session_replication_role = replica;
INSERT INTO fleet.transfers (id, tenant_id, debit_account_id, credit_account_id, amount_minor, ledger, code, flags,
    created_at)
SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || lpad(to_hex(n), 20, '0'))::uuid,
    '{tenant}', '{other}', '{wallet}', 1, 764, 1, 0, now() - interval '1 second' - n * interval '1 microsecond'
FROM generate_series(1, 10000) n;
UPDATE fleet.accounts SET credits_posted = credits_posted + 10000 WHERE id = '{wallet}';
SET session_replication_role = DEFAULT;
ANALYZE fleet.transfers;
"""


async def test_a_long_statement_takes_no_more_memory_than_some_pages(world: World) -> None:
    wallet, other = await world.funded_wallet(1), await world.funded_wallet(1)
    await world.admin.execute(_MANY.format(tenant=world.tenant_id, wallet=wallet, other=other))
    caller = Caller(world.key.id, world.tenant_id, "service", None, frozenset({"*"}), None)
    opened = await open_statement(world.core.ports, caller, UUID(wallet), FIRST.date(), LAST.date(), "UTC")
    lines = size = 0
    tracemalloc.start()
    try:
        async for part in csv_parts(opened):
            lines += part.count(b"\r\n")
            size += len(part)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lines == 1 + 1 + 10_001 + 2 + 2
    assert size > 1_000_000
    assert peak < 10_000_000, peak
    assert opened.tail().closing_balance_minor == 10_001
