"""A handful of accounts, and short ways to write transfers between them."""

import time
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from core.domain.ids import mint_id
from core.domain.ledger import Account, AccountFlags, Transfer, TransferFlags, system_account_id
from tests.support.ledger_engines import LedgerUnderTest

BAHT, EURO, CODE = 764, 978, 7


def fresh_id() -> UUID:
    """An id of now."""
    return mint_id(time.time_ns() // 1_000_000)


@dataclass
class LedgerWorld:
    """`bank` gives without limit, `wallet` and `purse` only what they have, `debtor` takes only what it gave."""

    tenant_id: UUID
    wallet: UUID = field(default_factory=fresh_id)
    purse: UUID = field(default_factory=fresh_id)
    debtor: UUID = field(default_factory=fresh_id)
    shut: UUID = field(default_factory=fresh_id)
    ice: UUID = field(default_factory=fresh_id)
    euros: UUID = field(default_factory=fresh_id)

    def __post_init__(self) -> None:
        self.bank = system_account_id(self.tenant_id, BAHT, CODE, "bank")
        self.clearing = system_account_id(self.tenant_id, BAHT, CODE, "clearing")

    def accounts(self) -> list[Account]:
        """Every account of the world."""
        limited = AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS
        return [
            self.account(self.wallet, flags=limited),
            self.account(self.purse, flags=limited),
            self.account(self.debtor, flags=AccountFlags.CREDITS_MUST_NOT_EXCEED_DEBITS),
            self.account(self.shut, flags=AccountFlags.CLOSED),
            self.account(self.ice, flags=limited | AccountFlags.FROZEN),
            self.account(self.euros, ledger=EURO),
            self.account(self.bank),
            self.account(self.clearing),
        ]

    def account(self, account_id: UUID, *, flags: AccountFlags = AccountFlags.NONE, ledger: int = BAHT) -> Account:
        """An account of the world's tenant."""
        return Account(account_id, self.tenant_id, ledger, CODE, flags)

    def move(self, debit: UUID, credit: UUID, amount_minor: int, **more: Any) -> Transfer:
        """A plain transfer, or whatever `more` makes of it."""
        fields: dict[str, Any] = {
            "id": fresh_id(),
            "tenant_id": self.tenant_id,
            "debit_account_id": debit,
            "credit_account_id": credit,
            "amount_minor": amount_minor,
            "ledger": BAHT,
            "code": CODE,
        }
        return Transfer(**fields | more)

    def hold(self, debit: UUID, credit: UUID, amount_minor: int, **more: Any) -> Transfer:
        """A pending transfer."""
        return self.move(debit, credit, amount_minor, flags=TransferFlags.PENDING, **more)

    def post(self, hold: Transfer, amount_minor: int | None = None, **more: Any) -> Transfer:
        """Post the hold: wholly, or this much of it."""
        return self._end(hold, hold.amount_minor if amount_minor is None else amount_minor, 4, more)

    def void(self, hold: Transfer, amount_minor: int | None = None, **more: Any) -> Transfer:
        """Void the hold."""
        return self._end(hold, hold.amount_minor if amount_minor is None else amount_minor, 8, more)

    def _end(self, hold: Transfer, amount_minor: int, flag: int, more: dict[str, Any]) -> Transfer:
        filled = {"flags": TransferFlags(flag), "pending_id": hold.id} | more
        return self.move(hold.debit_account_id, hold.credit_account_id, amount_minor, **filled)


async def open_world(ledger: LedgerUnderTest) -> LedgerWorld:
    """Create the world's accounts in the ledger."""
    world = LedgerWorld(ledger.tenant_id)
    answers = await ledger.create_accounts(world.accounts())
    assert set(answers) == {"ok"}
    return world


def linked(*chain: Transfer) -> list[Transfer]:
    """The transfers as one chain: each linked to the next, the last one closing it."""
    return [replace(t, flags=t.flags | TransferFlags.LINKED) for t in chain[:-1]] + [chain[-1]]
