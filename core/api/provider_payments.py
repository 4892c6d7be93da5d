"""Facts about money that came in, over the internal API: told by adapters, about their own rail alone."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.requests import BATCH_BODY_MAX_BYTES, parse, read_body
from core.api.signed_routes import Route
from core.services.access.keys import Caller
from core.services.money_in.collection_port import CollectionPorts
from core.services.money_in.provider_payments import receive_payments
from core.services.problems import Refusal, require_currency
from core.services.settling.rails import RailUnknownError
from schemas.collections import ProviderPaymentAnswers, ProviderPaymentBatch


def payment_routes(
    ports: CollectionPorts,
    unit_of_work: Callable[[str], AbstractAsyncContextManager[Any]],
    caller_of: Callable[[Request, bytes], Awaitable[Caller]],
) -> tuple[Route, ...]:
    """Return the routes; `caller_of` says which rail's key signed, and for which tenants."""

    async def take_payments(request: Request) -> Response:
        """Take facts about payments in; a repeat changes nothing."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        caller = await caller_of(request, body)
        rail = caller.rail or ""
        batch = parse(ProviderPaymentBatch, body)
        for place, fact in enumerate(batch.facts):
            require_currency(fact.currency, f"facts.{place}.currency")
        try:
            answers = await receive_payments(ports, lambda: unit_of_work(rail), rail, batch, caller.serves)
        except RailUnknownError as error:
            raise Refusal("rail_unavailable", "register the rail before telling what it received") from error
        return json_answer(answers)

    path = "/internal/v1/provider-payments"
    return (("POST", path, take_payments, ProviderPaymentAnswers, 200, ProviderPaymentBatch),)
