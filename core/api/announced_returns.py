"""Returns that a provider announces, over the internal API: told by adapters, of accounts of tenants they serve."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from fastapi import Request, Response

from core.api.answers import json_answer
from core.api.requests import BATCH_BODY_MAX_BYTES, parse, read_body
from core.api.served import require_served
from core.api.signed_routes import Route
from core.services.access.keys import Caller
from core.services.problems import require_currency
from core.store.database import UnitOfWork
from core.store.settling.announced_returns import AnnouncedStore
from schemas.announced_returns import AnnouncedKept, AnnouncedReturns

_PATH: Final = "/internal/v1/announced-returns"


def announced_routes(
    store: AnnouncedStore,
    unit_of_work: Callable[[str], AbstractAsyncContextManager[UnitOfWork]],
    caller_of: Callable[[Request, bytes], Awaitable[Caller]],
) -> list[Route]:
    """Return the route; `caller_of` says which rail's key signed, and for which tenants."""

    async def keep_announced(request: Request) -> Response:
        """Keep returns that a provider announces; a repeat changes nothing."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        caller = await caller_of(request, body)
        rail = caller.rail or ""
        told = parse(AnnouncedReturns, body, sealed=True)
        for place, each in enumerate(told.items):
            require_currency(each.currency, f"items.{place}.currency")
        async with unit_of_work(rail) as uow:
            await require_served(uow, caller, told.provider_account, told.environment)
            kept = await store.keep(uow, rail, told)
        return json_answer(AnnouncedKept(kept=kept))

    return [("POST", _PATH, keep_announced, AnnouncedKept, 200, AnnouncedReturns)]
