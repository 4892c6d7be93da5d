"""Quotes of exchange over HTTP: asked for and shown under a key that carries EXCHANGE."""

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.requests import parse, path_id
from core.api.signed_routes import Route, SignedRoutes
from core.services.terms.quotes import make_quote, show_quote
from schemas.exchange import QuoteRequest, QuoteView
from schemas.operations import OperationType


class QuoteRoutes(SignedRoutes):
    """The routes of quotes."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("POST", "/v1/quotes", self.make_quote, QuoteView, 201, QuoteRequest),
            ("GET", "/v1/quotes/{quote_id}", self.show_quote, QuoteView, 200, None),
        )

    async def make_quote(self, request: Request) -> Response:
        """Say what an exchange costs, for a while; an EXCHANGE may name it once."""
        caller, body = await self._signed(request)
        asked = parse(QuoteRequest, body, request.headers.get("content-type"))
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            return json_answer(await make_quote(uow, self._core.ports, caller, asked), 201)

    async def show_quote(self, request: Request) -> Response:
        """Show a quote, and by which intent it was used."""
        caller, _ = await self._operator(request, OperationType.EXCHANGE)
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            return json_answer(await show_quote(uow, self._core.ports.quotes, caller, path_id(request, "quote_id")))
