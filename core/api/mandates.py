"""Mandates over HTTP, under a key that carries DIRECT_DEBIT."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import Page, parse, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.services.payments.keep_mandates import cancel_mandate, list_mandates, register_mandate, show_mandate
from schemas.mandates import MandateCancelRequest, MandateDetail, MandatePage, MandateRequest


class _Query(Page):
    wallet_id: UUID | None = None


class MandateRoutes(SignedRoutes):
    """The routes of mandates."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("POST", "/v1/mandates", self.register, MandateDetail, 201, MandateRequest),
            ("GET", "/v1/mandates", self.list_mandates, MandatePage, 200, None),
            ("GET", "/v1/mandates/{mandate_id}", self.show, MandateDetail, 200, None),
            ("POST", "/v1/mandates/{mandate_id}/cancel", self.cancel, MandateDetail, 200, MandateCancelRequest),
        )

    async def register(self, request: Request) -> Response:
        """Register a mandate as its debtor signed it; the same again is the same."""
        caller, body = await self._signed(request)
        asked = parse(MandateRequest, body, request.headers.get("content-type"))
        return json_answer(await register_mandate(self._core.ports, caller, asked), 201)

    @tells(query=_Query)
    async def list_mandates(self, request: Request) -> Response:
        """List mandates in the order of their ids."""
        caller, _ = await self._signed(request)
        query = query_of(_Query, request)
        page = await list_mandates(self._core.ports, caller, query.wallet_id, query.cursor, query.limit)
        return json_answer(page)

    async def show(self, request: Request) -> Response:
        """Show a mandate and its newest debits."""
        caller, _ = await self._signed(request)
        return json_answer(await show_mandate(self._core.ports, caller, request.path_params["mandate_id"]))

    async def cancel(self, request: Request) -> Response:
        """Let nothing more be pulled under a mandate; its debits that were not sent end CANCELLED."""
        caller, body = await self._signed(request)
        asked = parse(MandateCancelRequest, body, request.headers.get("content-type"))
        mandate_id = request.path_params["mandate_id"]
        return json_answer(await cancel_mandate(self._core.ports, caller, mandate_id, asked.reason))
