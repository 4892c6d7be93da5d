"""Reconciliation breaks over HTTP, under a key that names RECONCILIATION."""

from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import Page, parse, path_id, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.services.access.keys import RECONCILIATION_SCOPE
from core.services.recon.break_desk import preview_break, show_break
from core.services.recon.recon import approve_break, assign_break, list_breaks, resolve_break
from schemas.base import Day
from schemas.jobs import RailName
from schemas.recon import (
    BreakList,
    BreakName,
    BreakOwner,
    BreakPreview,
    BreakResolution,
    BreakShown,
    BreakState,
    BreakView,
)


class _BreakQuery(Page):
    state: BreakState | Literal["ALL"] = BreakState.OPEN
    kind: BreakName | None = None
    rail: RailName | None = None
    """Only of this rail's registers."""
    day: Day | None = None
    """Only of this business day."""


class ReconRoutes(SignedRoutes):
    """The routes of breaks."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        one = "/v1/breaks/{break_id}"
        return (
            ("GET", "/v1/breaks", self.list_breaks, BreakList, 200, None),
            ("GET", one, self.show_break, BreakShown, 200, None),
            ("POST", f"{one}/preview", self.preview, BreakShown, 200, BreakPreview),
            ("POST", f"{one}/assign", self.assign, BreakView, 200, BreakOwner),
            ("POST", f"{one}/resolve", self.resolve, BreakView, 200, BreakResolution),
            ("POST", f"{one}/approve", self.approve, BreakView, 200, None),
        )

    @tells(query=_BreakQuery)
    async def list_breaks(self, request: Request) -> Response:
        """List breaks, the oldest first."""
        caller, _ = await self._operator(request, RECONCILIATION_SCOPE)
        query = query_of(_BreakQuery, request)
        state = query.state if isinstance(query.state, BreakState) else None
        narrowed = {name: value for name, value in query if name != "state"}
        return json_answer(await list_breaks(self._core.worker_ports, caller, state=state, **narrowed))

    async def show_break(self, request: Request) -> Response:
        """Show one break, and the entry that is proposed for it."""
        caller, _ = await self._operator(request, RECONCILIATION_SCOPE)
        return json_answer(await show_break(self._core.worker_ports, caller, path_id(request, "break_id")))

    async def preview(self, request: Request) -> Response:
        """Show what putting a break right by an entry would mean; nothing is changed."""
        caller, body = await self._operator(request, RECONCILIATION_SCOPE)
        asked = parse(BreakPreview, body, request.headers.get("content-type"))
        break_id = path_id(request, "break_id")
        return json_answer(await preview_break(self._core.worker_ports, caller, break_id, asked.entry_intent_id))

    async def assign(self, request: Request) -> Response:
        """Say who looks after a break."""
        caller, body = await self._operator(request, RECONCILIATION_SCOPE)
        asked = parse(BreakOwner, body, request.headers.get("content-type"))
        break_id = path_id(request, "break_id")
        return json_answer(await assign_break(self._core.worker_ports, caller, break_id, asked.owner))

    async def resolve(self, request: Request) -> Response:
        """Put a break right by a new entry; above the threshold a second person approves."""
        caller, body = await self._operator(request, RECONCILIATION_SCOPE)
        asked = parse(BreakResolution, body, request.headers.get("content-type"))
        break_id = path_id(request, "break_id")
        return json_answer(await resolve_break(self._core.worker_ports, caller, break_id, asked))

    async def approve(self, request: Request) -> Response:
        """Agree with how another person puts a break right."""
        caller, _ = await self._operator(request, RECONCILIATION_SCOPE)
        return json_answer(await approve_break(self._core.worker_ports, caller, path_id(request, "break_id")))
