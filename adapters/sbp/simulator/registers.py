"""The register of one Moscow day: every payout, payment by code and refund that moved money on it."""

import sqlite3
from datetime import UTC, date, datetime, timedelta
from typing import Final

import orjson

from adapters.sbp.models import RegisterKind
from adapters.sbp.simulator.payouts import MOSCOW, RUB, refusal
from adapters.testkit.durable import DurableStore
from adapters.testkit.registers import PAGE, Movement, RegisterScripts
from adapters.testkit.serving import Answer
from schemas.money import to_major_text
from schemas.registers import RegisterDirection, RegisterOperation, RegisterStatus

# When a refund ended is nowhere in its row: the book notes it by itself.
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS refund_ends (id TEXT PRIMARY KEY, ended_at_s REAL NOT NULL);
CREATE TRIGGER IF NOT EXISTS refund_ended AFTER UPDATE OF status ON refunds WHEN NEW.status = 'COMPLETED' BEGIN
    INSERT OR IGNORE INTO refund_ends VALUES (NEW.id, unixepoch('subsec'));
END;
CREATE TRIGGER IF NOT EXISTS refund_made AFTER INSERT ON refunds WHEN NEW.status = 'COMPLETED' BEGIN
    INSERT OR IGNORE INTO refund_ends VALUES (NEW.id, unixepoch('subsec'));
END;
"""
_MOVED: Final = """
SELECT 'PAYOUT' AS type, id AS reference, transaction_id, amount_minor, executed_at_s AS at_s FROM executed
WHERE executed_at_s >= :begin AND executed_at_s < :end
UNION ALL
SELECT 'PAYMENT', order_id, transaction_id, amount_minor, unixepoch(date, 'subsec') FROM payments
WHERE status = 'SUCCESS' AND unixepoch(date, 'subsec') >= :begin AND unixepoch(date, 'subsec') < :end
UNION ALL
SELECT 'REFUND', r.id, r.transaction_id, r.amount_minor, e.ended_at_s FROM refunds r JOIN refund_ends e ON e.id = r.id
WHERE e.ended_at_s >= :begin AND e.ended_at_s < :end
ORDER BY at_s, reference
"""
_MEANS: Final = {
    RegisterKind.PAYOUT: (RegisterOperation.PAYMENT, RegisterDirection.OUT),
    RegisterKind.PAYMENT: (RegisterOperation.PAYMENT, RegisterDirection.IN),
    RegisterKind.REFUND: (RegisterOperation.REFUND, RegisterDirection.OUT),
}
_TYPES: Final = {meaning: kind for kind, meaning in _MEANS.items()}
_STATUSES: Final = {RegisterStatus.SETTLED: "COMPLETED", RegisterStatus.FAILED: "DECLINED"}


async def register(store: DurableStore, scripts: RegisterScripts, fee_minor: int, day: str, after: str) -> Answer:
    """Answer a page of the day's register; `next` names the page that follows, null after the last."""
    try:
        asked, first = date.fromisoformat(day), int(after or 0)
    except ValueError:
        return refusal("ERROR.INVALID_REQUEST", 400)
    if asked > datetime.now(MOSCOW).date():
        return refusal("ERROR.REGISTER_NOT_FOUND", 404)
    happened = await store.run(lambda book: _moved(book, asked, fee_minor))
    before = await store.run(lambda book: _moved(book, asked - timedelta(days=1), fee_minor))
    lines = scripts.told(happened, before)
    page = [_item(place, line) for place, line in enumerate(lines, start=1)][first : first + PAGE]
    following = str(first + PAGE) if first + PAGE < len(lines) else None
    return Answer(200, {"date": day, "items": page, "next": following})


def _moved(book: sqlite3.Connection, day: date, fee_minor: int) -> list[Movement]:
    begin = datetime.combine(day, datetime.min.time(), MOSCOW)
    bounds = {"begin": begin.timestamp(), "end": (begin + timedelta(days=1)).timestamp()}
    return [
        Movement(
            row["transaction_id"],
            row["reference"],
            *_MEANS[RegisterKind(row["type"])],
            row["amount_minor"],
            fee_minor if row["type"] == RegisterKind.PAYOUT else 0,
            datetime.fromtimestamp(row["at_s"], UTC),
        )
        for row in book.execute(_MOVED, bounds)
    ]


def _item(place: int, line: Movement) -> dict[str, object]:
    fee = to_major_text(line.fee_minor, RUB) if line.fee_minor else "0.00"
    return {
        "line": place,
        "type": _TYPES[line.operation, line.direction],
        "transactionId": line.provider_ref,
        "reference": line.our_ref,
        "amount": orjson.Fragment(to_major_text(line.amount_minor, RUB)),
        "fee": orjson.Fragment(fee),
        "currency": RUB.code,
        "status": _STATUSES[line.status],
        "date": line.at.astimezone(MOSCOW).isoformat(),
    }
