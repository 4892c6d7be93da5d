"""The smallest complete rail: it pays nothing and says at once that it did. For benchmarks and as a pattern.

Its book is a dictionary in the memory of one process. It is NOT durable: after a restart, or asked of another
adapter, it does not know what it "paid". Never point real money at it.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from adapters.runtime.port import Order, Outcome
from schemas.operations import OperationType
from schemas.rails import Capabilities, PayeeType, RailRegistration, Timing
from schemas.results import Verdict
from wire.environment import EnvironmentSettings

_REMEMBERED = 20_000
"""References kept, so that a benchmark's memory stays flat."""


class NoopSettings(EnvironmentSettings):
    """`NOOP_DELAY_MS` is how long a payment takes, in milliseconds."""

    model_config = SettingsConfigDict(env_prefix="NOOP_")

    delay_ms: Annotated[int, Field(ge=0)] = 0


class NoopRail:
    """Implements the port, and the capability to be asked about a reference."""

    def __init__(self, timing: Timing, settings: NoopSettings) -> None:
        self._timing, self._delay_s = timing, settings.delay_ms / 1000
        self._book: dict[str, Outcome] = {}

    def registration(self) -> RailRegistration:
        """Declare one operation, without lookup, deduplicated by reference."""
        idle_s = self._timing.claim_idle_s
        return RailRegistration(
            rail="noop",
            provider="noop",
            provider_account="noop",
            operations={
                OperationType.PAYOUT: Capabilities(
                    inquiry=True,
                    deduplicates_reference=True,
                    not_found_horizon_s=2 * idle_s,
                    max_amount_minor=10**15,
                    currencies=["THB"],
                )
            },
            payee_types={"any": PayeeType(pattern=r".{1,140}", example="anyone", remedy="write 1 to 140 characters")},
            timing=self._timing,
        )

    async def pay(self, order: Order) -> Outcome:
        """Write the payment into the book, once per reference."""
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        return self._pay(order)

    async def pay_many(self, orders: Sequence[Order]) -> Sequence[Outcome | Exception]:
        """Write the payments into the book, each once per reference."""
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        return [self._pay(order) for order in orders]

    def _pay(self, order: Order) -> Outcome:
        paid = self._book.get(order.reference)
        if paid is None:
            paid = Outcome(
                Verdict.SUCCEEDED,
                amount_minor=order.amount_minor,
                currency=order.currency,
                provider_tx_id=order.reference,
            )
            self._book[order.reference] = paid
            if len(self._book) > _REMEMBERED:
                del self._book[next(iter(self._book))]
        return paid

    async def inquire(self, order: Order) -> Outcome:
        """Say what the book says."""
        return self._book.get(order.reference) or Outcome(Verdict.NOT_FOUND)

    async def close(self) -> None:
        """There is nothing to let go of."""
