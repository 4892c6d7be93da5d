"""Money that proved paid after its hold was released: the provider took it, so suspense pays it."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from core.domain.ids import derive_id
from core.domain.intents import IntentRow
from core.domain.ledger import Account, Transfer
from core.domain.operations import AccountCode, clearing_account, system_account
from core.domain.registry import TransferCode
from core.services.ledger_port import Ledger
from schemas.money import currency_of


async def paid_after_void(
    uow: Any, ledger: Ledger, intents: Sequence[IntentRow], back_minor: Mapping[UUID, int]
) -> list[Transfer]:
    """Return the postings of money that proved paid after its void: suspense pays what the provider paid, once.

    What the provider gave back of it, by intent, suspense gets; also where nobody had told before that it was paid.
    """
    if not intents:
        return []
    transfers: list[Transfer] = []
    accounts: dict[Any, Account] = {}
    payments = {intent.id: intent for intent in intents}
    for intent in payments.values():
        suspense = system_account(intent.tenant_id, intent.currency, AccountCode.SUSPENSE)
        clearing = clearing_account(intent)
        accounts |= {suspense.id: suspense, clearing.id: clearing}
        transfers.append(_posting(intent, suspense, clearing, "suspense", intent.received_minor))
        if intent.id in back_minor:
            transfers.append(_posting(intent, clearing, suspense, "suspense-back", back_minor[intent.id]))
    await ledger.create_accounts(uow, [accounts[key] for key in sorted(accounts)])
    return transfers


def _posting(intent: IntentRow, debit: Account, credit: Account, name: str, amount_minor: int) -> Transfer:
    return Transfer(
        id=derive_id(intent.id, name),
        tenant_id=intent.tenant_id,
        debit_account_id=debit.id,
        credit_account_id=credit.id,
        amount_minor=amount_minor,
        ledger=currency_of(intent.currency).numeric,
        code=TransferCode.SUSPENSE,
        user_data=intent.id,
    )
