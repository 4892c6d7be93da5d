"""Statements over HTTP: JSON or CSV, written while they are read."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from core.api.openapi import tells
from core.api.requests import path_id, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.services.wallets.statements import Statement, open_statement
from schemas.api import WalletEntry
from schemas.base import DAY_AS_WRITTEN
from schemas.limits import known_timezone
from schemas.money import Currency, currency_of, to_major_text
from schemas.statements import StatementFormat, WalletStatement

COLUMNS: Final = (
    "record", "at", "operation", "kind", "credit", "debit", "balance", "currency", "from", "to", "comment", "state",
    "intent_id", "transfer_id",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_DayThere = Annotated[date, Field(ge=date(1970, 1, 1), le=date(9000, 1, 1)), DAY_AS_WRITTEN]


class _StatementQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    first_day: Annotated[_DayThere | None, Field(alias="from")] = None
    last_day: Annotated[_DayThere | None, Field(alias="to")] = None
    timezone: Annotated[str, Field(alias="tz", max_length=64), AfterValidator(known_timezone)] = "UTC"
    format: StatementFormat = StatementFormat.JSON


class StatementRoutes(SignedRoutes):
    """The route of statements."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (("GET", "/v1/wallets/{wallet_id}/statement", self.show, WalletStatement, 200, None),)

    @tells(query=_StatementQuery, media=("text/csv",))
    async def show(self, request: Request) -> Response:
        """Write a wallet's statement of whole days of a timezone, as JSON or CSV."""
        caller, _ = await self._signed(request)
        query = query_of(_StatementQuery, request)
        wallet_id = path_id(request, "wallet_id")
        statement = await open_statement(
            self._core.ports, caller, wallet_id, query.first_day, query.last_day, query.timezone, self._core.read_ports
        )
        is_csv = query.format is StatementFormat.CSV
        name = f"statement-{wallet_id}-{statement.head.first_day}-{statement.head.last_day}.{query.format}"
        return StreamingResponse(
            csv_parts(statement) if is_csv else json_parts(statement),
            media_type="text/csv; charset=utf-8" if is_csv else "application/json",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )


async def json_parts(statement: Statement) -> AsyncIterator[bytes]:
    """Yield one JSON document in the shape of WalletStatement, its closing balance at the end."""
    # Ids that asyncpg read are of a UUID class of its own, which orjson does not know.
    yield orjson.dumps(statement.head.model_dump(), default=str)[:-1] + b',"entries":['
    separator = b""
    async for page in statement.pages():
        yield separator + b",".join(orjson.dumps(entry.model_dump(), default=str) for entry in page)
        separator = b","
    yield b"]," + orjson.dumps(statement.tail().model_dump())[1:]


async def csv_parts(statement: Statement) -> AsyncIterator[bytes]:
    """Yield a header, an `opening` row, an `entry` row each, a `total` row per operation, `fees` and `closing`.

    Amounts are decimals of the currency, times are those of the timezone.
    """
    head = statement.head
    money, zone = currency_of(head.currency), ZoneInfo(head.timezone)
    opening = to_major_text(head.opening_balance_minor, money)
    row = {"record": "opening", "at": _local(head.begin, zone), "balance": opening}
    yield _lines([dict(zip(COLUMNS, COLUMNS, strict=True)), row | {"currency": money.code}])
    async for page in statement.pages():
        yield _lines([_entry_row(entry, money, zone) for entry in page])
    tail = statement.tail()
    rows: list[dict[str, str]] = [
        {"record": "total", "operation": each.operation or "", "currency": money.code}
        | _both(each.credit_minor, each.debit_minor, money)
        for each in tail.totals
    ]
    fees = _both(tail.fees.credit_minor, tail.fees.debit_minor, money)
    rows.append({"record": "fees", "currency": money.code} | fees)
    closing = to_major_text(tail.closing_balance_minor, money)
    rows.append({"record": "closing", "at": _local(head.end, zone), "balance": closing, "currency": money.code})
    yield _lines(rows)


def _entry_row(entry: WalletEntry, money: Currency, zone: ZoneInfo) -> dict[str, str]:
    amount = to_major_text(abs(entry.amount_minor), money)
    return {
        "record": "entry",
        "at": _local(entry.at, zone),
        "operation": entry.operation or "",
        "kind": entry.kind,
        "credit" if entry.amount_minor > 0 else "debit": amount,
        "balance": to_major_text(entry.balance_minor, money),
        "currency": money.code,
        "from": harmless(entry.from_name),
        "to": harmless(entry.to_name),
        "comment": harmless(entry.comment),
        "state": entry.state or "",
        "intent_id": str(entry.intent_id or ""),
        "transfer_id": str(entry.transfer_id),
    }


def harmless(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: others wrote it, and would have it run by the reader."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _both(credit_minor: int, debit_minor: int, money: Currency) -> dict[str, str]:
    return {"credit": to_major_text(credit_minor, money), "debit": to_major_text(debit_minor, money)}


def _local(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).isoformat(timespec="microseconds")


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, restval="", lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
