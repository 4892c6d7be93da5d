"""What each operation does to the ledger: its legs, as holds, postings and voids. Pure.

Every id follows from the intent's: a repeated step names the same transfers, and the ledger answers `exists`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final
from uuid import UUID

from core.domain.fee_legs import FeeAccount
from core.domain.ids import derive_id
from core.domain.intents import IntentRow
from core.domain.ledger import Account, AccountFlags, Transfer, TransferFlags, system_account_id
from schemas.money import currency_of
from schemas.operations import JobKind, OperationType


class AccountCode(IntEnum):
    """The chart of accounts, per tenant and currency. CLEARING is one per provider account."""

    WALLET = 1
    CLEARING = 2
    FEE_INCOME = 3
    SUSPENSE = 4
    RECEIVABLE = 5
    LIQUIDITY = 6
    EQUITY = 7


class TransferCode(IntEnum):
    """Why money moved."""

    PRINCIPAL = 1
    FEE = 2
    ADJUSTMENT = 3
    SUSPENSE = 4


_RESOLVING: Final = frozenset({TransferFlags.POST_PENDING, TransferFlags.VOID_PENDING})
_LINKED: Final = {
    flags: flags | TransferFlags.LINKED for flags in (TransferFlags.NONE, TransferFlags.PENDING, *_RESOLVING)
}


@dataclass(frozen=True, slots=True)
class Operation:
    """How an operation is carried out. Without a job kind it needs no rail and settles when it is accepted."""

    type: OperationType
    job_kind: JobKind | None
    takes_fees: bool = True

    @property
    def needs_rail(self) -> bool:
        """Whether a provider carries it out."""
        return self.job_kind is not None


OPERATIONS: Final = {
    operation.type: operation
    for operation in (
        Operation(OperationType.PAYOUT, JobKind.PAY),
        Operation(OperationType.MANUAL_ADJUSTMENT, None, takes_fees=False),
    )
}
"""What can be asked for today; any other type is refused as `operation_not_supported`."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One movement of an operation."""

    name: str
    debit_account_id: UUID
    credit_account_id: UUID
    amount_minor: int
    code: TransferCode


@lru_cache(maxsize=10_000)
def system_account(tenant_id: UUID, currency: str, code: AccountCode, qualifier: str = "") -> Account:
    """Return a tenant's own account of this code; created on first use."""
    ledger = currency_of(currency).numeric
    return Account(system_account_id(tenant_id, ledger, code, qualifier), tenant_id, ledger, code)


def wallet_account(wallet_id: UUID, tenant_id: UUID, currency: str) -> Account:
    """Return the ledger account of a wallet: it never spends what it has not got."""
    flags = AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS
    return Account(wallet_id, tenant_id, currency_of(currency).numeric, AccountCode.WALLET, flags)


def clearing_account(intent: IntentRow) -> Account:
    """Return the account that mirrors what the intent's provider account holds for us."""
    qualifier = f"{intent.provider}:{intent.provider_account}:{intent.environment}"
    return system_account(intent.tenant_id, intent.currency, AccountCode.CLEARING, qualifier)


def accounts_of(intent: IntentRow) -> list[Account]:
    """Return the system accounts that the intent's legs touch."""
    if intent.operation == OperationType.MANUAL_ADJUSTMENT:
        return [system_account(intent.tenant_id, intent.currency, AccountCode.EQUITY)]
    accounts = [clearing_account(intent)]
    accounts += [fee_account(intent, leg.account) for leg in intent.fee_legs if leg.account.wallet_id is None]
    if intent.fee_minor > intent.fees_on_top_minor:
        accounts.append(system_account(intent.tenant_id, intent.currency, AccountCode.FEE_INCOME))
    return accounts


def legs_of(intent: IntentRow) -> list[Leg]:
    """Return the movements of the intent. Raises ValueError for an operation that is not in OPERATIONS."""
    amount = intent.amount_minor
    if intent.operation == OperationType.MANUAL_ADJUSTMENT:
        equity = system_account(intent.tenant_id, intent.currency, AccountCode.EQUITY)
        return [Leg("principal", equity.id, intent.wallet_id, amount, TransferCode.ADJUSTMENT)]
    if intent.operation != OperationType.PAYOUT:
        raise ValueError(f"operation {intent.operation} has no legs")
    clearing = clearing_account(intent)
    legs = [Leg("principal", intent.wallet_id, clearing.id, intent.received_minor, TransferCode.PRINCIPAL)]
    legs += _fee_legs(intent)
    # What the fees by rule do not explain is the fee that the provider's lookup named.
    named_minor = intent.fee_minor - intent.fees_on_top_minor
    if named_minor:
        income = system_account(intent.tenant_id, intent.currency, AccountCode.FEE_INCOME)
        legs.append(Leg("fee", intent.wallet_id, income.id, named_minor, TransferCode.FEE))
    return legs


def fee_account(intent: IntentRow, account: FeeAccount) -> Account:
    """Return the tenant's own account that gets a share of a fee."""
    return system_account(intent.tenant_id, intent.currency, AccountCode[account.code], account.qualifier)


def _fee_legs(intent: IntentRow) -> list[Leg]:
    """Return the fees by rule: the payer pays them all, those out of the amount instead of the recipient's part."""
    return [
        Leg(
            leg.name,
            intent.wallet_id,
            leg.account.wallet_id or fee_account(intent, leg.account).id,
            leg.amount_minor,
            TransferCode.FEE,
        )
        for leg in intent.fee_legs
    ]


def hold_id(intent_id: UUID, leg: str) -> UUID:
    """Return the id of the hold of one leg."""
    return derive_id(intent_id, "hold", leg)


def hold_transfers(intent: IntentRow) -> list[Transfer]:
    """Return the intent's holds as one chain: all of them, or none."""
    return _chain(intent, TransferFlags.PENDING)


def posting_transfers(intent: IntentRow) -> list[Transfer]:
    """Return the movements of an operation that settles at once, without a hold."""
    return _chain(intent, TransferFlags.NONE)


def post_transfers(intent: IntentRow) -> list[Transfer]:
    """Return the chain that posts every hold of the intent in full."""
    return _chain(intent, TransferFlags.POST_PENDING)


def void_transfers(intent: IntentRow) -> list[Transfer]:
    """Return the chain that releases every hold of the intent."""
    return _chain(intent, TransferFlags.VOID_PENDING)


def _chain(intent: IntentRow, flags: TransferFlags) -> list[Transfer]:
    ledger = currency_of(intent.currency).numeric
    resolves, linked = flags in _RESOLVING, _LINKED[flags]
    legs: Sequence[Leg] = legs_of(intent)
    chain = []
    for place, leg in enumerate(legs, start=1):
        held = None if flags is TransferFlags.NONE else hold_id(intent.id, leg.name)
        if held is None:
            transfer_id = derive_id(intent.id, "posting", leg.name)
        else:
            # Post and void share one id: a hold has one resolution, and the ledger refuses the other.
            transfer_id = derive_id(held, "resolution") if resolves else held
        chain.append(
            Transfer(
                id=transfer_id,
                tenant_id=intent.tenant_id,
                debit_account_id=leg.debit_account_id,
                credit_account_id=leg.credit_account_id,
                amount_minor=leg.amount_minor,
                ledger=ledger,
                code=leg.code,
                flags=linked if place < len(legs) else flags,
                pending_id=held if resolves else None,
                user_data=intent.id,
            )
        )
    return chain
