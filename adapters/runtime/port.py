"""The port: what a rail implements. Everything else (permits, claims, publishing, drain) is the runtime's.

A rail translates. It returns an Outcome, or raises one of `adapters.runtime.errors`, which say what is known
about the money; the runtime turns both into verdicts in one place. A power that not every provider has is a
small protocol of its own: a rail that has it simply has the method.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from schemas.permits import LookupBinding, Payee
from schemas.rails import RailRegistration
from schemas.results import Basis, Verdict


class Order(NamedTuple):
    """One thing to do, as the permit states it. The stream's entry contributes nothing to it.

    `reference` is the payment's own; for an inquiry or a cancel it is that of the payment asked about.
    """

    job_id: UUID
    reference: str
    amount_minor: int
    currency: str
    provider_account: str
    payee: Payee | None = None
    message: str = ""
    lookup: LookupBinding | None = None


class Outcome(NamedTuple):
    """What the provider said.

    `amount_minor` is what the provider stated, never an echo of the order. `payee_name` and `evidence` (the
    raw answer) go to the core encrypted and never through a stream. `basis` is set only where it differs
    from what the call implies: a submission answered with the status of its reference.
    """

    verdict: Verdict
    amount_minor: int | None = None
    currency: str | None = None
    provider_tx_id: str | None = None
    reason: str = ""
    retry_after_s: float | None = None
    lookup: LookupBinding | None = None
    payee_name: str | None = None
    evidence: str = ""
    basis: Basis | None = None


class Rail(Protocol):
    """The least that a rail does: it declares itself, and it pays."""

    def registration(self) -> RailRegistration:
        """Return the record of what this provider can do, per operation."""
        ...

    async def pay(self, order: Order) -> Outcome:
        """Submit the payment under `order.reference`, once."""
        ...

    async def close(self) -> None:
        """Let go of connections; nothing is in flight any more."""
        ...


@runtime_checkable
class PaysMany(Protocol):
    """Can submit many payments in one exchange, such as a file or a bulk call."""

    async def pay_many(self, orders: Sequence[Order]) -> Sequence[Outcome | Exception]:
        """Submit each order once, under its own reference; one answer an order, in the orders' order.

        An exception among the answers speaks of its order alone; one that is raised speaks of all of them. The whole
        exchange has the time of one call.
        """
        ...


@runtime_checkable
class LooksUp(Protocol):
    """Can ask who a payee is and what the payment costs, before it is made."""

    async def lookup(self, order: Order) -> Outcome:
        """Return FOUND with the binding that `pay` confirms. Moves no money."""
        ...


@runtime_checkable
class Inquires(Protocol):
    """Can ask what became of a reference, also when no answer to it ever arrived."""

    async def inquire(self, order: Order) -> Outcome:
        """Return the status of the reference. Moves no money."""
        ...


@runtime_checkable
class Cancels(Protocol):
    """Can see to it that a reference never executes, also one that the provider has not seen."""

    async def cancel(self, order: Order) -> Outcome:
        """Return CANCELLED, or the status that stands in the way (SUCCEEDED: it was paid). Idempotent."""
        ...
