"""Money in, in the demo: plays the payers of the file's collections, and asks for refunds once they are paid."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from core.domain.context import Context
from core.store.database import Database
from fleet.demo.payments_file import PaymentLine, RefusedLine
from schemas.events import TERMINAL_STATES
from schemas.operations import OperationType

DIRECT_DEBIT: Final = "direct_debit"
"""The payee type of a line that is pulled under a mandate; the payee is the debtor's account, a semicolon, a name."""
COLLECTIONS: Final = {
    "topup": OperationType.TOPUP,
    "deposit": OperationType.DEPOSIT,
    DIRECT_DEBIT: OperationType.DIRECT_DEBIT,
}
"""Payee type -> operation, of lines whose money comes in; of the first two the payee is whoever pays, in any words."""
REFUND: Final = "refund"
"""The payee type of a line that gives a line before it back; the payee is that line's reference."""
_SHOWN: Final = """
SELECT i.id, j.rail, j.reference, j.amount_minor FROM fleet.intents i
JOIN fleet.jobs j ON j.intent_id = i.id AND j.kind = 'collect'
WHERE i.id = ANY ($1::uuid[]) AND i.state IN ('AUTHORIZED', 'DISPATCHED')
    AND (i.next_action IS NOT NULL OR i.operation = 'DIRECT_DEBIT' AND j.state = 'WAITING')
"""
_STATES: Final = "SELECT id, state FROM fleet.intents WHERE id = ANY ($1::uuid[])"

PayIn = Callable[[str, str, int], Awaitable[None]]
"""Pays a collection at its provider: rail, reference, amount in minor units. A direct debit's day comes."""


@dataclass(frozen=True, slots=True)
class Collected:
    """A collection of the file, and the wallet that it is for."""

    intent_id: UUID
    wallet_id: UUID


class MoneyIn:
    """What the file's collections and refunds wait for; a step does what can be done by now."""

    def __init__(self, database: Database, pay_in: PayIn) -> None:
        self._database, self._pay_in = database, pay_in
        self._collected: dict[str, Collected] = {}
        self._paid: set[UUID] = set()
        self._refunds: list[PaymentLine] = []

    @property
    def waits(self) -> bool:
        """Whether refunds are left to be asked for."""
        return bool(self._refunds)

    def accepted(self, line: PaymentLine, collected: Collected) -> None:
        """Note that a collection was accepted: its payer pays once it is shown what to pay."""
        self._collected[line.reference] = collected

    def wanted(self, line: PaymentLine) -> RefusedLine | None:
        """Note a refund for when its original is paid; or say why it never can be."""
        if line.payee not in self._collected:
            text = f"no top-up or deposit {line.payee!r} was accepted before this line"
            return RefusedLine(line.line, "original_not_found", text)
        self._refunds.append(line)
        return None

    async def pay(self) -> None:
        """Let the payers pay what is shown by now, each once."""
        open_ = [each.intent_id for each in self._collected.values() if each.intent_id not in self._paid]
        if not open_:
            return
        async with self._database.unit_of_work(Context(None, "demo")) as uow:
            shown = await uow.connection.fetch(_SHOWN, open_)
        for row in shown:
            await self._pay_in(row["rail"], row["reference"], row["amount_minor"])
            self._paid.add(row["id"])

    async def due(self) -> list[tuple[PaymentLine, Collected]]:
        """Return the refunds whose originals have ended, once each."""
        if not self._refunds:
            return []
        ids = [self._collected[line.payee].intent_id for line in self._refunds]
        async with self._database.unit_of_work(Context(None, "demo")) as uow:
            rows = await uow.connection.fetch(_STATES, ids)
        ended = {row["id"] for row in rows if row["state"] in TERMINAL_STATES}
        due = [(line, self._collected[line.payee]) for line in self._refunds]
        due = [(line, original) for line, original in due if original.intent_id in ended]
        self._refunds = [line for line in self._refunds if self._collected[line.payee].intent_id not in ended]
        return due
