"""Acting for a user: a request that is made for one reaches that user's wallets alone, and the journal tells of it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol
from uuid import UUID

from core.domain.context import Context
from core.services.access.keys import Caller
from core.services.on_call.audit import Act, Journal
from core.services.problems import Refusal
from schemas.api import IntentRequest


class OwnedWallets(Protocol):
    """Where it is known whose wallets there are."""

    async def owned_by(self, uow: Any, owner: str) -> frozenset[UUID]: ...


class ActingPorts(Protocol):
    """What acting for a user works with."""

    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...
    @property
    def wallets(self) -> OwnedWallets: ...
    @property
    def journal(self) -> Journal: ...


async def confined(ports: ActingPorts, caller: Caller, method: str, path: str) -> Caller:
    """Return the caller as far as the user's wallets reach; what it asks for is journalled before it is answered.

    A caller that acts for nobody is returned as it is. Raises Refusal `on_behalf_of_missing`.
    """
    if caller.acting is None:
        if caller.acts_for_users:
            raise _missing("Fleet-On-Behalf-Of")
        return caller
    user = caller.acting.user
    data = {"agent": caller.acting.agent, "method": method, "path": path}
    act = Act(caller.tenant_id, caller.context().actor, "acted_for_user", f"user:{user}", data)
    async with ports.unit_of_work(caller.context()) as uow:
        reached = await _within(uow, ports, caller, user)
        await ports.journal.append(uow, [act])
    return reached


async def reaching(ports: ActingPorts, caller: Caller) -> Caller:
    """Return the caller as far as the user's wallets reach now, in the course of what was journalled when it began."""
    if caller.acting is None:
        return caller
    async with ports.unit_of_work(caller.context()) as uow:
        return await _within(uow, ports, caller, caller.acting.user)


async def _within(uow: Any, ports: ActingPorts, caller: Caller, user: str) -> Caller:
    owned = await ports.wallets.owned_by(uow, user)
    return replace(caller, accounts=owned if caller.accounts is None else owned & caller.accounts)


def made_for(caller: Caller, request: IntentRequest) -> IntentRequest:
    """Return a payment's request with the user that it is made for: the body may tell it, the header does.

    Whether the wallet is the user's is checked with the wallet; the payment's events tell user and agent, so the
    journal need not. Raises Refusal: on_behalf_of_missing, on_behalf_of_differs.
    """
    if caller.acting is None:
        if caller.acts_for_users and request.on_behalf_of is None:
            raise _missing("on_behalf_of")
        return request
    if request.on_behalf_of not in (None, caller.acting):
        text = "the request and its Fleet-On-Behalf-Of name different users, or who acts for them: leave one out"
        raise Refusal("on_behalf_of_differs", text, field="on_behalf_of")
    return request.model_copy(update={"on_behalf_of": caller.acting})


def _missing(field: str) -> Refusal:
    text = "this key acts for users alone: say for whom in Fleet-On-Behalf-Of, and sign it"
    return Refusal("on_behalf_of_missing", text, field=field)
