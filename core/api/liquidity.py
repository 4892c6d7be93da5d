"""Exposure and overdraft of liquidity over HTTP, under a key that names LIQUIDITY."""

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import parse, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.services.access.keys import LIQUIDITY_SCOPE
from core.services.terms.exposure import allow_overdraft, exposure
from schemas.exchange import ExposureView, LiquidityRequest
from schemas.fees import Moment


class _ExposureQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    since: Moment | None = None


class LiquidityRoutes(SignedRoutes):
    """The routes of liquidity."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("GET", "/v1/exposure", self.exposure, ExposureView, 200, None),
            ("POST", "/v1/liquidity", self.allow_overdraft, ExposureView, 200, LiquidityRequest),
        )

    @tells(query=_ExposureQuery)
    async def exposure(self, request: Request) -> Response:
        """Show what liquidity there is of each currency, and what was exchanged, since ever or a moment."""
        caller, _ = await self._operator(request, LIQUIDITY_SCOPE)
        query = query_of(_ExposureQuery, request)
        ports = self._core.ports
        async with ports.unit_of_work(caller.context()) as uow:
            return json_answer(await exposure(uow, ports.liquidity, caller.tenant_id, query.since))

    async def allow_overdraft(self, request: Request) -> Response:
        """Let the liquidity of a currency go below zero, or no more."""
        caller, body = await self._operator(request, LIQUIDITY_SCOPE)
        asked = parse(LiquidityRequest, body, request.headers.get("content-type"))
        ports = self._core.ports
        async with ports.unit_of_work(caller.context()) as uow:
            view = await allow_overdraft(
                uow, ports.liquidity, ports.ledger, caller.tenant_id, asked.currency, asked.may_overdraw
            )
        return json_answer(view)
