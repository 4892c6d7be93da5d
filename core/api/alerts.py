"""Alerts about payments over HTTP, under a key that names DEAD_LETTERS; agreeing takes REDRIVE_APPROVAL."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import Page, parse, path_id, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.services.access.keys import DEAD_LETTERS_SCOPE, REDRIVE_APPROVAL_SCOPE, Caller
from core.services.on_call.alerts import AlertFilter, approve_alert, close_alert, list_alerts, reopen_alert
from schemas.alerts import AlertClosing, AlertKind, AlertList, AlertSeverity, AlertsWanted, AlertView

_Change = Callable[[Any, Caller, UUID, str], Awaitable[AlertView]]


class _AlertQuery(Page):
    state: AlertsWanted = AlertsWanted.WAITING
    severity: AlertSeverity | None = None
    kind: AlertKind | None = None
    intent_id: UUID | None = None


class AlertRoutes(SignedRoutes):
    """The routes of alerts."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        one = "/v1/alerts/{alert_id}"
        return (
            ("GET", "/v1/alerts", self.list_alerts, AlertList, 200, None),
            ("POST", f"{one}/close", self.close, AlertView, 200, AlertClosing),
            ("POST", f"{one}/approve", self.approve, AlertView, 200, AlertClosing),
            ("POST", f"{one}/reopen", self.reopen, AlertView, 200, AlertClosing),
        )

    @tells(query=_AlertQuery)
    async def list_alerts(self, request: Request) -> Response:
        """List alerts, the oldest first."""
        caller, _ = await self._operator(request, DEAD_LETTERS_SCOPE)
        query = query_of(_AlertQuery, request)
        wanted = AlertFilter(query.state, query.severity, query.kind, query.intent_id)
        ports = self._core.worker_ports
        return json_answer(await list_alerts(ports, caller, wanted, cursor=query.cursor, limit=query.limit))

    async def close(self, request: Request) -> Response:
        """Close an alert with a reason; one that pages waits for a second person."""
        return await self._changed(request, DEAD_LETTERS_SCOPE, close_alert)

    async def approve(self, request: Request) -> Response:
        """Agree to close what another person proposed to close."""
        return await self._changed(request, REDRIVE_APPROVAL_SCOPE, approve_alert)

    async def reopen(self, request: Request) -> Response:
        """Take back one's own proposal to close an alert; another's takes REDRIVE_APPROVAL."""
        return await self._changed(request, DEAD_LETTERS_SCOPE, reopen_alert)

    async def _changed(self, request: Request, scope: str, change: _Change) -> Response:
        caller, body = await self._operator(request, scope)
        asked = parse(AlertClosing, body, request.headers.get("content-type"))
        return json_answer(await change(self._core.worker_ports, caller, path_id(request, "alert_id"), asked.reason))
