"""The register of one Bangkok day: every transfer, payment by code, return and refund that moved money on it."""

import sqlite3
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from adapters.promptpay.models import RegisterKind
from adapters.promptpay.simulator.answers import refusal
from adapters.testkit.durable import DurableStore
from adapters.testkit.registers import PAGE, Movement, RegisterScripts
from adapters.testkit.serving import Answer
from schemas.money import currency_of, to_major_text
from schemas.registers import RegisterDirection, RegisterOperation, RegisterStatus

BANGKOK: Final = ZoneInfo("Asia/Bangkok")
_THB: Final = currency_of("THB")
_MOVED: Final = """
SELECT 'TRANSFER' AS type, e.client_ref, e.psp_txid, e.amount_minor, e.executed_at AS at, '' AS status FROM executed e
WHERE e.executed_at >= :begin AND e.executed_at < :end
UNION ALL
SELECT 'QR_PAYMENT', client_ref, psp_txid, amount_minor, received_at, status FROM received
WHERE received_at >= :begin AND received_at < :end
UNION ALL
SELECT 'QR_RETURN', client_ref, psp_txid, amount_minor, received_at, '' FROM received
WHERE status = 'RETURNED' AND received_at >= :begin AND received_at < :end
UNION ALL
SELECT 'REFUND', client_ref, psp_txid, amount_minor, refunded_at, '' FROM refunded
WHERE refunded_at >= :begin AND refunded_at < :end
ORDER BY at, psp_txid
"""
_MEANS: Final = {
    RegisterKind.TRANSFER: (RegisterOperation.PAYMENT, RegisterDirection.OUT),
    RegisterKind.QR_PAYMENT: (RegisterOperation.PAYMENT, RegisterDirection.IN),
    RegisterKind.QR_RETURN: (RegisterOperation.RETURN, RegisterDirection.OUT),
    RegisterKind.REFUND: (RegisterOperation.REFUND, RegisterDirection.OUT),
}
_TYPES: Final = {meaning: kind for kind, meaning in _MEANS.items()}
_STATUSES: Final = {
    RegisterStatus.SETTLED: "SUCCEEDED",
    RegisterStatus.FAILED: "FAILED",
    RegisterStatus.RETURNED: "REFUNDED",
}


async def register(store: DurableStore, scripts: RegisterScripts, fee_minor: int, day: str, after: str) -> Answer:
    """Answer a page of the day's register; `next` names the page that follows, null after the last."""
    try:
        asked, first = date.fromisoformat(day), int(after or 0)
    except ValueError:
        return refusal(422, "field_invalid", "date: YYYY-MM-DD, after: a number")
    if asked > datetime.now(BANGKOK).date():
        return refusal(404, "register_not_found", "the day has not come")
    happened = await store.run(lambda book: _moved(book, asked, fee_minor))
    before = await store.run(lambda book: _moved(book, asked - timedelta(days=1), fee_minor))
    lines = scripts.told(happened, before)
    page = [_item(place, line) for place, line in enumerate(lines, start=1)][first : first + PAGE]
    following = first + PAGE if first + PAGE < len(lines) else None
    return Answer(200, {"date": day, "items": page, "next": following})


def _moved(book: sqlite3.Connection, day: date, fee_minor: int) -> list[Movement]:
    begin = datetime.combine(day, datetime.min.time(), BANGKOK)
    bounds = {"begin": begin.timestamp(), "end": (begin + timedelta(days=1)).timestamp()}
    return [
        Movement(
            row["psp_txid"],
            row["client_ref"],
            *_MEANS[RegisterKind(row["type"])],
            row["amount_minor"],
            fee_minor if row["type"] == RegisterKind.TRANSFER else 0,
            datetime.fromtimestamp(row["at"], UTC),
            RegisterStatus.RETURNED if row["status"] == "RETURNED" else RegisterStatus.SETTLED,
        )
        for row in book.execute(_MOVED, bounds)
    ]


def _item(place: int, line: Movement) -> dict[str, object]:
    return {
        "line": place,
        "type": _TYPES[line.operation, line.direction],
        "psp_txid": line.provider_ref,
        "client_ref": line.our_ref,
        "amount": to_major_text(line.amount_minor, _THB),
        "fee": to_major_text(line.fee_minor, _THB) if line.fee_minor else "0.00",
        "status": _STATUSES[line.status],
        "at": line.at.isoformat(),
    }
