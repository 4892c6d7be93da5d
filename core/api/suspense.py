"""Suspense over HTTP: the work list, and what a person decides about its items, under a key that names SUSPENSE."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import Page, parse, path_id, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.services.access.keys import SUSPENSE_SCOPE
from core.services.money_in.suspense import (
    assign_item,
    list_items,
    list_tolerances,
    return_item,
    set_tolerance,
    show_item,
)
from schemas.suspense import (
    AssignRequest,
    ReturnRequest,
    SuspenseDetail,
    SuspensePage,
    SuspenseState,
    ToleranceList,
    ToleranceRequest,
    ToleranceView,
)


class _Query(Page):
    state: SuspenseState | None = None
    intent_id: UUID | None = None


class SuspenseRoutes(SignedRoutes):
    """The routes of suspense."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("GET", "/v1/suspense", self.list_items, SuspensePage, 200, None),
            ("GET", "/v1/suspense/{item_id}", self.show_item, SuspenseDetail, 200, None),
            ("POST", "/v1/suspense/{item_id}/assign", self.assign, SuspenseDetail, 200, AssignRequest),
            ("POST", "/v1/suspense/{item_id}/return", self.give_back, SuspenseDetail, 200, ReturnRequest),
            ("GET", "/v1/collection-tolerances", self.list_tolerances, ToleranceList, 200, None),
            ("PUT", "/v1/collection-tolerances", self.set_tolerance, ToleranceView, 200, ToleranceRequest),
        )

    @tells(query=_Query)
    async def list_items(self, request: Request) -> Response:
        """List money in suspense, oldest first."""
        caller, _ = await self._operator(request, SUSPENSE_SCOPE)
        query = query_of(_Query, request)
        page = await list_items(
            self._core.ports,
            caller,
            state=query.state,
            intent_id=query.intent_id,
            cursor=query.cursor,
            limit=query.limit,
        )
        return json_answer(page)

    async def show_item(self, request: Request) -> Response:
        """Show one item, who told of it and what was decided."""
        caller, _ = await self._operator(request, SUSPENSE_SCOPE)
        return json_answer(await show_item(self._core.ports, caller, path_id(request, "item_id")))

    async def assign(self, request: Request) -> Response:
        """Give an item's money to a wallet."""
        caller, body = await self._operator(request, SUSPENSE_SCOPE)
        asked = parse(AssignRequest, body, request.headers.get("content-type"))
        return json_answer(await assign_item(self._core.ports, caller, path_id(request, "item_id"), asked))

    async def give_back(self, request: Request) -> Response:
        """Pay an item's money back to who paid it."""
        caller, body = await self._operator(request, SUSPENSE_SCOPE)
        asked = parse(ReturnRequest, body, request.headers.get("content-type"))
        return json_answer(await return_item(self._core.ports, caller, path_id(request, "item_id"), asked))

    async def list_tolerances(self, request: Request) -> Response:
        """List how far payments may differ and still be credited."""
        caller, _ = await self._operator(request, SUSPENSE_SCOPE)
        return json_answer(ToleranceList(items=await list_tolerances(self._core.ports, caller)))

    async def set_tolerance(self, request: Request) -> Response:
        """Say how far payments of an operation may differ."""
        caller, body = await self._operator(request, SUSPENSE_SCOPE)
        asked = parse(ToleranceRequest, body, request.headers.get("content-type"))
        return json_answer(await set_tolerance(self._core.ports, caller, asked))
