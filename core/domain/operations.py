"""What each operation does to the ledger: its legs, as holds, postings and voids. Pure.

Every id follows from the intent's: a repeated step names the same transfers, and the ledger answers `exists`.
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from core.domain.exchange import ExchangeTerms
from core.domain.fee_legs import FeeLeg
from core.domain.ids import derive_id
from core.domain.intents import IntentRow
from core.domain.ledger import Account, AccountFlags, Transfer, TransferFlags, system_account_id
from core.domain.registry import OPERATIONS, LegKind, Role, TransferCode
from schemas.fees import FeePhase
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


_RESOLVING: Final = frozenset({TransferFlags.POST_PENDING, TransferFlags.VOID_PENDING})
_LINKED: Final = {
    flags: flags | TransferFlags.LINKED for flags in (TransferFlags.NONE, TransferFlags.PENDING, *_RESOLVING)
}


_OWN_ACCOUNTS: Final = {
    Role.EQUITY: AccountCode.EQUITY,
    Role.SUSPENSE: AccountCode.SUSPENSE,
    Role.LIQUIDITY: AccountCode.LIQUIDITY,
    Role.RECEIVABLE: AccountCode.RECEIVABLE,
}
SPREAD_QUALIFIER: Final = "exchange:spread"
"""Names the fee income that spreads go to; no fee rule can name it."""


class Leg(NamedTuple):
    """One movement of an operation, within the ledger of one currency.

    A tuple, as all that is made for each payment: that takes a third of the time.
    """

    name: str
    debit_account_id: UUID
    credit_account_id: UUID
    amount_minor: int
    code: TransferCode
    ledger: int


@lru_cache(maxsize=10_000)
def system_account(tenant_id: UUID, currency: str, code: AccountCode, qualifier: str = "") -> Account:
    """Return a tenant's own account of this code; created on first use."""
    ledger = currency_of(currency).numeric
    return Account(system_account_id(tenant_id, ledger, code, qualifier), tenant_id, ledger, code)


def wallet_account(wallet_id: UUID, tenant_id: UUID, currency: str) -> Account:
    """Return the ledger account of a wallet: it never spends what it has not got."""
    flags = AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS
    return Account(wallet_id, tenant_id, currency_of(currency).numeric, AccountCode.WALLET, flags)


@lru_cache(maxsize=10_000)
def liquidity_account(tenant_id: UUID, currency: str) -> Account:
    """Return the account that a tenant exchanges a currency out of: it gives what it has, unless that was allowed."""
    account = system_account(tenant_id, currency, AccountCode.LIQUIDITY)
    return replace(account, flags=AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS)


def spread_account(tenant_id: UUID, currency: str) -> Account:
    """Return the fee income that the spreads of exchanges into a currency go to."""
    return system_account(tenant_id, currency, AccountCode.FEE_INCOME, SPREAD_QUALIFIER)


def clearing_account(intent: IntentRow) -> Account:
    """Return the account that mirrors what the intent's provider account holds for us."""
    qualifier = f"{intent.provider}:{intent.provider_account}:{intent.environment}"
    return system_account(intent.tenant_id, intent.currency, AccountCode.CLEARING, qualifier)


def accounts_of(intent: IntentRow) -> list[Account]:
    """Return the system accounts that the intent's legs touch."""
    principal = _principal(intent)
    roles = (principal.debit, principal.credit)
    accounts = [clearing_account(intent)] if Role.CLEARING in roles else []
    accounts += [_own_account(intent, role) for role in roles if role in _OWN_ACCOUNTS]
    if intent.exchange is not None:
        accounts.append(liquidity_account(intent.tenant_id, intent.exchange.currency))
        accounts.append(spread_account(intent.tenant_id, intent.exchange.currency))
    accounts += [fee_account(intent, leg) for leg in intent.fee_legs if leg.account.wallet_id is None]
    if intent.fee_minor > intent.fees_on_top_minor:
        accounts.append(system_account(intent.tenant_id, intent.currency, AccountCode.FEE_INCOME))
    return accounts


def liquidity_of(intent: IntentRow) -> frozenset[UUID]:
    """Return the accounts of liquidity that the intent's legs touch."""
    return frozenset(account.id for account in accounts_of(intent) if account.code == AccountCode.LIQUIDITY)


def legs_of(intent: IntentRow) -> list[Leg]:
    """Return the movements of the intent. Raises ValueError for no operation of the registry."""
    principal, ledger = _principal(intent), currency_of(intent.currency).numeric
    debit, credit = _account_id(intent, principal.debit), _account_id(intent, principal.credit)
    legs = [Leg("principal", debit, credit, intent.principal_minor, principal.code, ledger)]
    if intent.exchange is not None:
        legs += _bought_legs(intent, intent.exchange)
    legs += _fee_legs(intent, ledger)
    # What the fees by rule do not explain is the fee that the provider's lookup named.
    named_minor = intent.fee_minor - intent.fees_on_top_minor
    if named_minor:
        income = system_account(intent.tenant_id, intent.currency, AccountCode.FEE_INCOME)
        legs.append(Leg("fee", intent.wallet_id, income.id, named_minor, TransferCode.FEE, ledger))
    return legs


def _principal(intent: IntentRow) -> LegKind:
    return _principal_of(intent.operation, intent.direction)


@lru_cache(maxsize=1024)  # Asked several times of every payment.
def _principal_of(operation: str, direction: str | None) -> LegKind:
    return OPERATIONS[OperationType(operation)].movement(direction).principal


def _account_id(intent: IntentRow, role: Role) -> UUID:
    if role is Role.WALLET:
        return intent.wallet_id
    if role is Role.CLEARING:
        return clearing_account(intent).id
    if role in _OWN_ACCOUNTS:
        return _own_account(intent, role).id
    if intent.counterparty_wallet_id is None:
        raise ValueError(f"operation {intent.operation} has no counterparty")
    return intent.counterparty_wallet_id


def _own_account(intent: IntentRow, role: Role) -> Account:
    if role is Role.LIQUIDITY:
        return liquidity_account(intent.tenant_id, intent.currency)
    return system_account(intent.tenant_id, intent.currency, _OWN_ACCOUNTS[role])


def _bought_legs(intent: IntentRow, terms: ExchangeTerms) -> list[Leg]:
    """Return what leaves the liquidity of the other currency: what the counterparty gets, and the house's spread."""
    ledger = currency_of(terms.currency).numeric
    liquidity = liquidity_account(intent.tenant_id, terms.currency).id
    bought, spread = OPERATIONS[OperationType(intent.operation)].bought
    legs = [Leg("bought", liquidity, _account_id(intent, bought.credit), intent.bought_minor, bought.code, ledger)]
    if terms.spread_minor:
        kept = spread_account(intent.tenant_id, terms.currency).id
        legs.append(Leg("spread", liquidity, kept, terms.spread_minor, spread.code, ledger))
    return legs


def fee_account(intent: IntentRow, leg: FeeLeg) -> Account:
    """Return the tenant's own account that gets a share of a fee."""
    currency = intent.currency_of_fee(leg)
    return system_account(intent.tenant_id, currency, AccountCode[leg.account.code], leg.account.qualifier)


def _fee_legs(intent: IntentRow, ledger: int) -> list[Leg]:
    """Return the fees by rule: the payer pays them all, those out of the amount instead of the recipient's part.

    Those of a refund go back to who paid them, those out of an exchange come from where the recipient's part does.
    """
    legs: list[Leg] = []
    for leg in intent.fee_legs:
        debit, credit = intent.wallet_id, leg.account.wallet_id or fee_account(intent, leg).id
        if intent.is_refund:
            debit, credit = credit, _account_id(intent, _principal(intent).credit)
        elif intent.exchange is not None and leg.phase is FeePhase.POST:
            bought = intent.exchange.currency
            debit = liquidity_account(intent.tenant_id, bought).id
            legs.append(Leg(leg.name, debit, credit, leg.amount_minor, TransferCode.FEE, currency_of(bought).numeric))
            continue
        legs.append(Leg(leg.name, debit, credit, leg.amount_minor, TransferCode.FEE, ledger))
    return legs


def settles_at_once(intent: IntentRow) -> bool:
    """Whether it is settled once it is authorized: nothing is sent, and nobody decides about it."""
    return not intent.requires_monitoring and not _is_sent(intent.operation, intent.direction)


@lru_cache(maxsize=1024)  # Asked several times of every payment.
def _is_sent(operation: str, direction: str | None) -> bool:
    return OPERATIONS[OperationType(operation)].job_kind_of(direction) is not None


def sending_job(intent: IntentRow) -> UUID:
    """Return the id of the job that a provider carries the intent out by, whether it was made or not."""
    kind = OPERATIONS[OperationType(intent.operation)].job_kind_of(intent.direction)
    return derive_id(intent.id, "job", kind or JobKind.PAY)


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
                ledger=leg.ledger,
                code=leg.code,
                flags=linked if place < len(legs) else flags,
                pending_id=held if resolves else None,
                user_data=intent.id,
            )
        )
    return chain
