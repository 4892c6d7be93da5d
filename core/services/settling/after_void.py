"""Money that proved paid after its hold was released: the provider took it, so suspense pays it."""

from collections.abc import Sequence
from typing import Any

from core.domain.ids import derive_id
from core.domain.intents import IntentRow
from core.domain.ledger import Account, Transfer
from core.domain.operations import AccountCode, clearing_account, system_account
from core.domain.registry import TransferCode
from core.services.ledger_port import Ledger
from schemas.money import currency_of


async def paid_after_void(uow: Any, ledger: Ledger, intents: Sequence[IntentRow]) -> list[Transfer]:
    """Return the postings of money that proved paid after its void: suspense pays what the provider paid, once."""
    if not intents:
        return []
    transfers: list[Transfer] = []
    accounts: dict[Any, Account] = {}
    for intent in {intent.id: intent for intent in intents}.values():
        suspense = system_account(intent.tenant_id, intent.currency, AccountCode.SUSPENSE)
        clearing = clearing_account(intent)
        accounts |= {suspense.id: suspense, clearing.id: clearing}
        transfers.append(
            Transfer(
                id=derive_id(intent.id, "suspense"),
                tenant_id=intent.tenant_id,
                debit_account_id=suspense.id,
                credit_account_id=clearing.id,
                amount_minor=intent.received_minor,
                ledger=currency_of(intent.currency).numeric,
                code=TransferCode.SUSPENSE,
                user_data=intent.id,
            )
        )
    await ledger.create_accounts(uow, [accounts[key] for key in sorted(accounts)])
    return transfers
