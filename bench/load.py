"""A lean load generator, so that what is measured is the system: presigned by hand, aiohttp, orjson, one process."""

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp
import orjson

from fleet.stack.stack import StackInfo
from wire.signing import signed_headers


@dataclass
class Load:
    """A client of one stack that pays from one wallet."""

    info: StackInfo
    http: aiohttp.ClientSession
    wallet_id: str = ""
    payee: dict[str, str] = field(default_factory=lambda: {"type": "any", "value": "someone"})

    async def call(self, method: str, path: str, body: Any = None, key: str = "") -> Any:
        """Send one signed request and return its JSON. Raises RuntimeError on anything but 2xx."""
        raw = orjson.dumps(body, default=str) if body is not None else b""
        headers = signed_headers(
            method=method,
            path=path,
            body=raw,
            key_id=self.info.key_id,
            secret=self.info.key_secret,
            timestamp=int(time.time()),
            nonce=secrets.token_urlsafe(12),
            idempotency_key=key or None,
        )
        headers["Content-Type"] = "application/json"
        async with self.http.request(method, self.info.public_url + path, data=raw, headers=headers) as answer:
            content = await answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
            return orjson.loads(content)

    async def open_wallet(self) -> None:
        """Open a wallet and put enough into it."""
        wallet = await self.call("POST", "/v1/wallets", {"owner": "bench", "currency": "THB"})
        self.wallet_id = wallet["id"]
        money = {
            "operation": "MANUAL_ADJUSTMENT",
            "wallet_id": self.wallet_id,
            "amount_minor": 10**14,
            "currency": "THB",
        }
        await self.call("POST", "/v1/intents", money, key=secrets.token_hex(12))

    def intent(self, number: int) -> dict[str, Any]:
        """Return the body of one payment."""
        return {
            "operation": "PAYOUT",
            "wallet_id": self.wallet_id,
            "amount_minor": 100 + number % 1000,
            "currency": "THB",
            "payee": {"type": "any", "value": f"payee {number % 5000}"},
        }

    async def pay_batch(self, first: int, count: int) -> list[UUID]:
        """Ask for `count` payments in one request; return their ids."""
        items = [
            {"idempotency_key": f"{self.wallet_id}-{number}", "intent": self.intent(number)}
            for number in range(first, first + count)
        ]
        answer = await self.call("POST", "/v1/intents:batch", {"items": items})
        refused = [each for each in answer["results"] if each["intent"] is None]
        if refused:
            raise RuntimeError(f"{len(refused)} payments were refused: {refused[0]}")
        return [UUID(each["intent"]["id"]) for each in answer["results"]]

    async def pay_one(self, number: int) -> UUID:
        """Ask for one payment."""
        answer = await self.call("POST", "/v1/intents", self.intent(number), key=f"{self.wallet_id}-one-{number}")
        return UUID(answer["id"])

    async def pay_many(self, total: int, batch: int, in_flight: int) -> None:
        """Ask for `total` payments in batches with so many requests in flight."""
        starts = iter(range(0, total, batch))

        async def work() -> None:
            for first in starts:
                await self.pay_batch(first, min(batch, total - first))

        await asyncio.gather(*(work() for _ in range(in_flight)))
