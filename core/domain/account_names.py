"""Which account an id is. Pure: ids of a tenant's own accounts follow from what they are for, so a guess is proven."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from uuid import UUID

from core.domain.intents import IntentRow
from core.domain.ledger import Account, AccountFlags, system_account_id
from core.domain.operations import SPREAD_QUALIFIER, AccountCode, accounts_of


def name_account(
    account_id: UUID, tenant_id: UUID, ledger: int, intents: Sequence[IntentRow], provider_accounts: Iterable[str]
) -> Account | None:
    """Return the tenant's own account of this id, or None where it is none that these payments could have made.

    `intents` are some that moved money there, `provider_accounts` the names `provider:account:environment` of clearing.
    """
    for intent in intents:
        for account in accounts_of(intent):
            if account.id == account_id:
                return account
    for code, qualifier in _guesses(intents, provider_accounts):
        if system_account_id(tenant_id, ledger, code, qualifier) == account_id:
            account = Account(account_id, tenant_id, ledger, code)
            limited = code is AccountCode.LIQUIDITY
            return replace(account, flags=AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS) if limited else account
    return None


def _guesses(intents: Sequence[IntentRow], provider_accounts: Iterable[str]) -> Iterator[tuple[AccountCode, str]]:
    yield from ((code, "") for code in AccountCode if code is not AccountCode.WALLET)
    yield AccountCode.FEE_INCOME, SPREAD_QUALIFIER
    carried = [f"{each.provider}:{each.provider_account}:{each.environment}" for each in intents if each.provider]
    yield from ((AccountCode.CLEARING, name) for name in (*carried, *provider_accounts))
