"""What an adapter tells about its rail: what it can do, and what it has to hold back. Under /internal/v1/rails."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import Request, Response

from core.api.answers import json_answer
from core.api.requests import parse, read_body
from core.api.served import require_served_rail
from core.api.signed_routes import Route
from core.services.access.keys import Caller
from core.services.problems import Refusal
from core.services.settling.rails import Rails, RegistrationLimitedError, TimingRefusedError, register
from schemas.rails import RailRegistered, RailRegistration, RailWaits

_log = logging.getLogger(__name__)


def rail_routes(
    rails: Rails,
    unit_of_work: Callable[[str], AbstractAsyncContextManager[Any]],
    caller_of: Callable[[Request, bytes], Awaitable[Caller]],
) -> list[Route]:
    """Return the routes; `caller_of` says which rail's key signed, and for which tenants."""

    async def registration(request: Request, rail: str) -> Response:
        """Declare what a rail can do."""
        body = await read_body(request)
        caller = await caller_of(request, body)
        own, declared = caller.rail or "", parse(RailRegistration, body)
        if rail != own or declared.rail != own:
            raise Refusal("operation_not_permitted", "a rail key registers its own rail only")
        try:
            async with unit_of_work(own) as uow:
                version = await register(uow, rails, declared, limited=caller.serves is not None)
        except TimingRefusedError as error:
            raise Refusal("invalid_request", str(error), field="timing") from error
        except RegistrationLimitedError as error:
            text = "this key is for some tenants: register the rail so by an adapter whose key is for all, then repeat"
            raise Refusal("rail_key_limited", text) from error
        return json_answer(RailRegistered(rail=own, version=version))

    async def waits(request: Request, rail: str) -> Response:
        """Say which operations the provider cannot take now; what waits for them does not expire."""
        body = await read_body(request)
        caller = await caller_of(request, body)
        own, told = caller.rail or "", parse(RailWaits, body)
        if rail != own:
            raise Refusal("operation_not_permitted", "a rail key speaks of its own rail only")
        async with unit_of_work(own) as uow:
            await require_served_rail(uow, caller)
            began = await rails.note_waits(uow, own, told.operations, "breaker", told.holds_s)
        if began:
            _log.error("rail %s waits for its provider: %s", own, ", ".join(began))
        return json_answer(told)

    return [
        ("PUT", "/internal/v1/rails/{rail}", registration, RailRegistered, 200, RailRegistration),
        ("POST", "/internal/v1/rails/{rail}/waits", waits, RailWaits, 200, RailWaits),
    ]
