"""How the simulator calls back: signed, late, twice, forged, out of order, as a script asks."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from adapters.sbp import signing
from adapters.sbp.client import read_json


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one callback is delivered."""

    delay_s: float = 0.0
    times: int = 1
    forged: bool = False
    """Signed with another key."""
    changed: dict[str, Any] = field(default_factory=dict)
    """Values of the body that are replaced before it is signed, such as an older status."""


class Callbacks:
    """Sends callbacks to one address; without an address, none."""

    def __init__(self, url: str, secret: str) -> None:
        self._url, self._secret = url, secret
        self._running: set[asyncio.Task[None]] = set()

    def payout(self, payout: dict[str, Any], delivery: Delivery) -> None:
        """Tell a payout's status."""
        told = {**payout, **delivery.changed}
        self._send(orjson.dumps({"event": "payout", "payout": told}), delivery)

    def payment(self, payment: dict[str, Any], delivery: Delivery) -> None:
        """Tell a payment by a QR code."""
        self._send(orjson.dumps({**payment, **delivery.changed}), delivery)

    def stop(self) -> None:
        """Give up what is not delivered yet."""
        for task in self._running:
            task.cancel()

    def _send(self, body: bytes, delivery: Delivery) -> None:
        if self._url:
            task = asyncio.create_task(self._deliver(body, delivery))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _deliver(self, body: bytes, delivery: Delivery) -> None:
        await asyncio.sleep(delivery.delay_s)
        # Signed is what the body says, by its digits, as the receiver will read it.
        told = read_json(body)
        text = signing.payout_text(told["payout"]) if "payout" in told else signing.payment_text(told)
        secret = f"not {self._secret}" if delivery.forged else self._secret
        headers = {signing.SIGNATURE_HEADER: signing.sign(secret, text), "Content-Type": "application/json"}
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            for _ in range(delivery.times):
                with contextlib.suppress(httpx.HTTPError):
                    await client.post(self._url, content=body, headers=headers)
