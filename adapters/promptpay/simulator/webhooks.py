"""What IPPS tells by itself: signed, repeated until it is taken, and wrong in every way that a script asks for."""

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import httpx
import orjson

from adapters.promptpay import signing
from adapters.promptpay.simulator.qr import Paid
from schemas.money import currency_of, to_major_text

_THB: Final = currency_of("THB")
_STALE_S: Final = 3_600


class Manner(StrEnum):
    """How an event is told."""

    ONCE = "once"
    NEVER = "never"
    TWICE = "twice"
    """Two deliveries of one event."""
    LATE = "late"
    """After the callback delay."""
    FORGED = "forged"
    """Signed with another secret."""
    TAMPERED = "tampered"
    """Signed, then the amount changed."""
    STALE = "stale"
    """Signed an hour ago."""


@dataclass(slots=True)
class Webhooks:
    """Sends to one URL, `retries` more times until a 2xx, `retry_after_s` apart: SCB does so for 36 s."""

    url: str
    key_id: str
    secret: str
    delay_s: float = 2.0
    retries: int = 3
    retry_after_s: float = 12.0
    _sending: set[asyncio.Task[None]] = field(default_factory=set)
    answers: list[int] = field(default_factory=list)
    """The status that each delivery got; 0 where nobody answered."""

    def tell(self, event: Mapping[str, object], manner: Manner = Manner.ONCE) -> None:
        """Begin to tell an event; nothing waits for it."""
        if self.url and manner is not Manner.NEVER:
            task = asyncio.create_task(self._tell(orjson.dumps(event), manner))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def tell_in_order(self, events: Sequence[Mapping[str, object]]) -> None:
        """Tell events one behind the other, in the order given, which may be any."""
        for event in events:
            await self._tell(orjson.dumps(event), Manner.ONCE)

    async def _tell(self, body: bytes, manner: Manner) -> None:
        if manner is Manner.LATE:
            await asyncio.sleep(self.delay_s)
        timestamp = str(int(time.time()) - (_STALE_S if manner is Manner.STALE else 0))
        secret = f"not-{self.secret}" if manner is Manner.FORGED else self.secret
        headers = {
            signing.KEY_HEADER: self.key_id,
            signing.TIMESTAMP_HEADER: timestamp,
            signing.SIGNATURE_HEADER: signing.sign(secret, timestamp, body),
            "Content-Type": "application/json",
        }
        if manner is Manner.TAMPERED:
            body = body.replace(b'"amount":"', b'"amount":"9')
        async with httpx.AsyncClient(timeout=5) as client:
            for _ in range(2 if manner is Manner.TWICE else 1):
                await self._deliver(client, body, headers)

    async def _deliver(self, client: httpx.AsyncClient, body: bytes, headers: Mapping[str, str]) -> None:
        for left in reversed(range(self.retries + 1)):
            try:
                status = (await client.post(self.url, content=body, headers=headers)).status_code
            except httpx.HTTPError:
                status = 0
            self.answers.append(status)
            if 200 <= status < 300 or not left:
                return
            await asyncio.sleep(self.retry_after_s)


def qr_event(kind: str, paid: Paid) -> dict[str, object]:
    """Return what is told about a payment for a code."""
    return {
        "event_id": f"EV{secrets.token_hex(10)}",
        "type": kind,
        "psp_txid": paid.psp_txid,
        "bank_ref": paid.bank_ref,
        "client_ref": paid.reference,
        "amount": to_major_text(paid.amount_minor, _THB),
        "status": paid.status,
        "occurred_at": datetime.now(UTC).isoformat(),
    }


def transfer_event(told: Mapping[str, object]) -> dict[str, object]:
    """Return what is told about a transfer: each telling is an event of its own."""
    event = {"event_id": f"EV{secrets.token_hex(10)}", "type": "transfer.updated", **told}
    return {**event, "occurred_at": datetime.now(UTC).isoformat()}
