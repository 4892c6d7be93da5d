"""The internal API of banks' messages, for adapters alone: a key sees its rail's, of accounts of tenants it serves."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from fastapi import Request, Response

from core.api.answers import json_answer
from core.api.requests import BATCH_BODY_MAX_BYTES, parse, read_body
from core.api.served import require_served
from core.api.signed_routes import Route
from core.services.access.keys import Caller
from core.store.database import UnitOfWork
from core.store.settling.messages import MessageStore
from schemas.bank_messages import MessageFate, MessagesAsked, MessagesKept, MessageStored, MessageToKeep

_PATH: Final = "/internal/v1/messages"


def message_routes(
    store: MessageStore,
    unit_of_work: Callable[[str], AbstractAsyncContextManager[UnitOfWork]],
    caller_of: Callable[[Request, bytes], Awaitable[Caller]],
) -> list[Route]:
    """Return the routes under /internal/v1/messages; `caller_of` says which rail's key signed, and for whom."""

    async def keep_message(request: Request) -> Response:
        """Keep one message of a bank under its number."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        caller = await caller_of(request, body)
        rail = caller.rail or ""
        asked = parse(MessageToKeep, body)
        async with unit_of_work(rail) as uow:
            await require_served(uow, caller, asked.provider_account, asked.environment)
            fate = await store.keep(uow, rail, asked)
            return json_answer(MessageStored(stored=fate is not MessageFate.SAME, fate=fate))

    async def kept_messages(request: Request) -> Response:
        """Return what is kept from a number on, a page at a time."""
        body = await read_body(request)
        caller = await caller_of(request, body)
        rail = caller.rail or ""
        asked = parse(MessagesAsked, body)
        async with unit_of_work(rail) as uow:
            await require_served(uow, caller, asked.provider_account, asked.environment)
            items = await store.kept(uow, rail, asked)
        # Straight to JSON, which writes the bytes in base 64.
        return Response(MessagesKept.model_construct(items=items).model_dump_json(), media_type="application/json")

    return [
        ("POST", _PATH, keep_message, MessageStored, 200, MessageToKeep),
        ("POST", f"{_PATH}/kept", kept_messages, MessagesKept, 200, MessagesAsked),
    ]
