"""Pairs and rates of exchange over HTTP, under a key that names RATES."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import BATCH_BODY_MAX_BYTES, Page, parse, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.domain.rates import Pair
from core.services.access.keys import RATES_SCOPE
from core.services.problems import Refusal
from core.services.terms.rates import RatesRefusedError, list_pairs, list_rates, list_versions, record_rates, set_pair
from schemas.exchange import PairList, PairRequest, PairView, RateList, RatesRequest


class _RateQuery(Page):
    pair: Annotated[str, Field(pattern=r"^[A-Z]{3}/[A-Z]{3}$")] | None = None


class RateRoutes(SignedRoutes):
    """The routes of pairs and rates."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("POST", "/v1/exchange-pairs", self.set_pair, PairView, 201, PairRequest),
            ("GET", "/v1/exchange-pairs", self.list_pairs, PairList, 200, None),
            ("POST", "/v1/rates", self.record_rates, RateList, 201, RatesRequest),
            ("GET", "/v1/rates", self.list_rates, RateList, 200, None),
        )

    @tells(repeats=True)
    async def set_pair(self, request: Request) -> Response:
        """Set the terms of a pair as its next version; a repeat answers 200 and changes nothing."""
        caller, body = await self._operator(request, RATES_SCOPE)
        asked = parse(PairRequest, body, request.headers.get("content-type"))
        ports, context = self._core.ports, caller.context()
        async with ports.unit_of_work(context) as uow:
            view, is_new = await set_pair(uow, ports.exchange_rates, caller.tenant_id, context.actor, asked)
        return json_answer(view, 201 if is_new else 200)

    async def list_pairs(self, request: Request) -> Response:
        """List the newest terms of every pair, disabled ones too."""
        caller, _ = await self._operator(request, RATES_SCOPE)
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            found = await list_pairs(uow, self._core.ports.exchange_rates, caller.tenant_id)
        return json_answer(PairList(items=found))

    @tells(repeats=True)
    async def record_rates(self, request: Request) -> Response:
        """Record rates, all or none; answer those that are new, and 200 where none is."""
        caller, body = await self._operator(request, RATES_SCOPE, BATCH_BODY_MAX_BYTES)
        asked = parse(RatesRequest, body, request.headers.get("content-type"))
        ports, context = self._core.ports, caller.context()
        try:
            async with ports.unit_of_work(context) as uow:
                made = await record_rates(uow, ports.exchange_rates, caller.tenant_id, context.actor, asked.rates)
        except RatesRefusedError as refused:
            place, first = refused.faults[0]
            raise Refusal(first.code, first.detail, field=f"rates.{place}.{first.field}") from refused
        return json_answer(RateList(items=made), 201 if made else 200)

    @tells(query=_RateQuery)
    async def list_rates(self, request: Request) -> Response:
        """List the rate in force of every pair, or the versions of one, newest first."""
        caller, _ = await self._operator(request, RATES_SCOPE)
        query = query_of(_RateQuery, request)
        store = self._core.ports.exchange_rates
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            if query.pair is None:
                found = await list_rates(uow, store, caller.tenant_id)
            else:
                pair = Pair(*query.pair.split("/"))
                found = await list_versions(uow, store, caller.tenant_id, pair, query.cursor, query.limit)
        return json_answer(found)
