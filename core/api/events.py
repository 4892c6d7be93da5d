"""Events over HTTP: pages of JSON, or Server-Sent Events for who says so in Accept."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Final

import orjson
from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import Page, path_id, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.services.told.events import Follower, position_of
from schemas.events import EventPage, EventType, EventView

EVENT_STREAM: Final = "text/event-stream"
_HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class _EventQuery(Page):
    type: Annotated[
        tuple[EventType, ...], BeforeValidator(lambda told: told.split(",") if told else ()), Field(max_length=32)
    ] = ()


class EventRoutes(SignedRoutes):
    """The routes of events."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("GET", "/v1/events", self.list_all, EventPage, 200, None),
            ("GET", "/v1/intents/{intent_id}/events", self.list_of_intent, EventPage, 200, None),
        )

    @tells(query=_EventQuery, streams=True)
    async def list_all(self, request: Request) -> Response:
        """List or stream the events of every intent, oldest first; `type` narrows them, such as `settled,failed`."""
        caller, _ = await self._signed(request)
        query = query_of(_EventQuery, request)
        service = self._core.events
        if not _wants_stream(request):
            return json_answer(await service.page(caller, query.type, query.cursor, query.limit))
        cursor = _last_seen(request, query.cursor)
        renew = partial(self._renewed, request, caller)
        follower = service.hub.follow(caller.tenant_id, None)
        return self._stream(follower, service.follow_all(follower, renew, query.type, cursor))

    @tells(query=Page, streams=True, ends=True)
    async def list_of_intent(self, request: Request) -> Response:
        """List or stream the events of one intent; the stream ends with the intent."""
        caller, _ = await self._signed(request)
        query, intent_id = query_of(Page, request), path_id(request, "intent_id")
        service = self._core.events
        if not _wants_stream(request):
            return json_answer(await service.page_of_intent(caller, intent_id, query.cursor, query.limit))
        cursor = _last_seen(request, query.cursor)
        if await service.has_ended(caller, intent_id, cursor):
            return Response(status_code=204)  # tells a browser's EventSource to come no more
        renew = partial(self._renewed, request, caller)
        follower = service.hub.follow(caller.tenant_id, intent_id)
        return self._stream(follower, service.follow_intent(follower, renew, intent_id, cursor))

    def _stream(self, follower: Follower, events: AsyncIterator[EventView | str]) -> Response:
        hub = self._core.events.hub
        return _EventStream(_frames(events), lambda: hub.leave(follower))


class _EventStream(StreamingResponse):
    """A stream that gives its place back however it ends: to its end, with the client, or before its first byte."""

    def __init__(self, frames: AsyncGenerator[bytes], done: Callable[[], None]) -> None:
        super().__init__(frames, 200, _HEADERS, EVENT_STREAM)
        self._frames, self._done = frames, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._frames):
                await super().__call__(scope, receive, send)
        finally:
            self._done()


def _wants_stream(request: Request) -> bool:
    return EVENT_STREAM in request.headers.get("accept", "")


def _last_seen(request: Request, cursor: str | None) -> str | None:
    last = request.headers.get("last-event-id") or cursor
    position_of(last)
    return last


async def _frames(events: AsyncIterator[EventView | str]) -> AsyncGenerator[bytes]:
    yield b"retry: 1000\n\n"
    async for event in events:
        if isinstance(event, str):
            yield b": still here\nid: %b\n\n" % event.encode()
            continue
        body = orjson.dumps(event.model_dump(), default=str)
        yield b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.type.encode(), body)
