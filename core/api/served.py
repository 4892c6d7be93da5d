"""What an adapter may see that tells of every tenant of an account: all of it, or nothing."""

from core.services.access.keys import Caller
from core.services.problems import Refusal
from core.store.database import UnitOfWork
from core.store.settling.served import tenants_of, tenants_of_rail


async def serves_account(uow: UnitOfWork, caller: Caller, account: str, environment: str) -> bool:
    """Whether a rail's key is for every tenant whose money an account of the rail's provider moves."""
    if caller.serves is None:
        return True
    tenants = await tenants_of(uow, caller.rail or "", account, environment)
    return bool(tenants) and tenants <= caller.serves


async def require_served(uow: UnitOfWork, caller: Caller, account: str, environment: str) -> None:
    """Refuse an account that moves money of a tenant that the key does not serve.

    Raises Refusal `operation_not_permitted`.
    """
    if not await serves_account(uow, caller, account, environment):
        text = "this key does not serve every tenant whose money the account moves"
        raise Refusal("operation_not_permitted", text, field="provider_account")


async def require_served_rail(uow: UnitOfWork, caller: Caller) -> None:
    """Refuse to hold a rail back that carries payments of a tenant that the key does not serve.

    Raises Refusal `rail_key_limited`.
    """
    if caller.serves is None:
        return
    tenants = await tenants_of_rail(uow, caller.rail or "")
    if not tenants or not tenants <= caller.serves:
        raise Refusal(
            "rail_key_limited", "waits hold every tenant of the rail back: tell them by a key that is for all"
        )
