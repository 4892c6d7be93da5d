"""/metrics of the internal listener, and the count and the duration of every request of a listener."""

import time
from typing import Final

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.telemetry.catalogue import REQUEST_SECONDS, REQUESTS
from wire.logs import log_about
from wire.tracing import Traced, begin, is_on

TRACEPARENT: Final = "fleet.traceparent"
"""Where a request's scope has its span, for what the request makes."""


def install_metrics(app: FastAPI) -> None:
    """Add /metrics, unsigned: what this process counted. It reads neither the database nor Redis."""

    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    app.add_api_route("/metrics", metrics, include_in_schema=False)


class Measured:
    """An application whose requests are counted by route and class of status; what has no route is `other`."""

    def __init__(self, app: ASGIApp, listener: str) -> None:
        self._app, self._listener = app, listener
        self._counters: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began_s, traced = 500, time.perf_counter(), self._traced(scope)

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = _route_of(scope)
            requests, seconds = self._counters.get((route, status // 100)) or self._find_counters(route, status // 100)
            requests.inc()
            seconds.observe(time.perf_counter() - began_s)
            if traced is not None:
                traced.end(route=route, status=status)

    def _find_counters(self, route: str, class_of_status: int) -> tuple[Counter, Histogram]:
        found = (
            REQUESTS.labels(self._listener, route, f"{class_of_status}xx"),
            REQUEST_SECONDS.labels(self._listener, route),
        )
        self._counters[route, class_of_status] = found
        return found

    def _traced(self, scope: Scope) -> Traced | None:
        """Begin the span of a client's request, under the client's own where it sent one; None while none are made."""
        if not is_on() or self._listener != "public":
            return None
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), "")
        traced = begin(f"{scope['method']} request", "SERVER", given)
        scope[TRACEPARENT] = traced.traceparent
        log_about(traced.traceparent)
        return traced


def _route_of(scope: Scope) -> str:
    # A path is anybody's text, and would make a label of every id: only the routes' own patterns are told.
    return str(scope.get("hot_path") or getattr(scope.get("route"), "path", "other"))
