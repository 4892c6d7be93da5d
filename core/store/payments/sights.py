"""What whoever covers some wallets alone may see of payments: `sight_of` of the read service, in SQL."""

from typing import Final

from core.domain.registry import OPERATIONS, Role

_ASKED_BY_PAYEE: Final = ", ".join(
    f"'{operation.type}'" for operation in OPERATIONS.values() if operation.asked_for is Role.COUNTERPARTY
)


def sees_all(own: str, of: str = "") -> str:
    """Return the condition that an intent is paid or asked for by one of the wallets in the SQL expression `own`."""
    return f"({of}wallet_id = {own} OR {of}operation IN ({_ASKED_BY_PAYEE}) AND {of}counterparty_wallet_id = {own})"


def sees(own: str, *, state: str, of: str = "") -> str:
    """Return the condition that there is anything to see; who gets the money sees it once `state` says it came."""
    return f"({sees_all(own, of)} OR {of}counterparty_wallet_id = {own} AND {state} = 'SETTLED')"
