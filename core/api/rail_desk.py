"""Rails and streams over HTTP for people on call; and one payment revealed, or asked about at the provider."""

from dataclasses import asdict, replace
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import parse, path_id, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.bootstrap import Core
from core.services.access.keys import DEAD_LETTERS_SCOPE, RAILS_SCOPE, REVEAL_SCOPE, Caller
from core.services.on_call import rail_desk
from core.services.on_call.redrives import background_context
from core.services.on_call.reveal import reveal
from core.services.on_call.stream_repair import RepairedStreams, note, reached, streams_of, told_of
from core.services.problems import Refusal
from schemas.base import Contract
from schemas.rail_desk import (
    ConsumerName,
    HeldEntryList,
    ProviderAsked,
    RailChanged,
    RailEventList,
    RailList,
    RailPause,
    RailResume,
    RevealAsked,
    RevealedView,
    Seconds,
    StreamClaim,
    StreamDifference,
    StreamMoved,
    StreamRelease,
    StreamRepairAsked,
    StreamStatusList,
    TidiedList,
)

_Asked = TypeVar("_Asked", bound=BaseModel)


class _EventQuery(Contract):
    limit: Annotated[int, Field(ge=1, le=1000)] = 50


class _HeldQuery(Contract):
    consumer: ConsumerName | None = None


class _DifferenceQuery(Contract):
    age_s: Seconds = 30


class RailDeskRoutes(SignedRoutes):
    """The routes of rails and streams; `streams` is what reaches them, None where this core was given none."""

    def __init__(self, core: Core, streams: RepairedStreams | None) -> None:
        super().__init__(core)
        self._streams = streams

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        rail, stream, intent = "/v1/rails/{rail}", "/v1/streams/{rail}", "/v1/intents/{intent_id}"
        return (
            ("GET", "/v1/rails", self.list_rails, RailList, 200, None),
            ("GET", f"{rail}/events", self.list_events, RailEventList, 200, None),
            ("POST", f"{rail}/pause", self.pause, RailChanged, 200, RailPause),
            ("POST", f"{rail}/resume", self.resume, RailChanged, 200, RailResume),
            ("GET", "/v1/streams", self.list_streams, StreamStatusList, 200, None),
            ("GET", f"{stream}/held", self.list_held, HeldEntryList, 200, None),
            ("GET", f"{stream}/difference", self.compare, StreamDifference, 200, None),
            ("POST", f"{stream}/release", self.release, StreamMoved, 200, StreamRelease),
            ("POST", f"{stream}/claim", self.claim, StreamMoved, 200, StreamClaim),
            ("POST", f"{stream}/rebuild", self.rebuild, StreamDifference, 200, StreamRepairAsked),
            ("POST", f"{stream}/janitor", self.tidy, TidiedList, 200, StreamRepairAsked),
            ("POST", f"{intent}/reveal", self.reveal, RevealedView, 200, RevealAsked),
            ("POST", f"{intent}/ask", self.ask, ProviderAsked, 200, None),
        )

    async def list_rails(self, request: Request) -> Response:
        """List every rail that has registered, what of it is paused, and what waits."""
        caller, _ = await self._operator(request, RAILS_SCOPE)
        return json_answer(RailList(items=await rail_desk.list_rails(self._core.worker_ports, caller)))

    @tells(query=_EventQuery)
    async def list_events(self, request: Request) -> Response:
        """List who paused and resumed a rail and why, and when it had to wait."""
        caller, _ = await self._operator(request, RAILS_SCOPE)
        query, ports = query_of(_EventQuery, request), self._core.worker_ports
        found = await rail_desk.rail_events(ports, caller, request.path_params["rail"], query.limit)
        return json_answer(RailEventList(items=found))

    async def pause(self, request: Request) -> Response:
        """Give no first permits of a rail any more."""
        caller, rail, asked = await self._asked(request, RailPause)
        ports, operation = self._core.worker_ports, asked.operation or "*"
        return json_answer(await rail_desk.pause_rail(ports, caller, rail, operation, asked.reason))

    async def resume(self, request: Request) -> Response:
        """Give first permits of a rail again."""
        caller, rail, asked = await self._asked(request, RailResume)
        return json_answer(await rail_desk.resume_rail(self._core.worker_ports, caller, rail, asked.operation or "*"))

    async def list_streams(self, request: Request) -> Response:
        """List what waits in the streams of every rail, and who holds what."""
        caller, _ = await self._operator(request, RAILS_SCOPE)
        rail_desk.require_everywhere(caller)
        if self._streams is None:
            raise Refusal("not_found", "this core was given no streams")
        return json_answer(StreamStatusList(items=tuple(await reached(self._streams.status()))))

    @tells(query=_HeldQuery)
    async def list_held(self, request: Request) -> Response:
        """List what consumers of a rail's streams hold."""
        _, rail = await self._looking(request)
        query = query_of(_HeldQuery, request)
        held = await reached(self._of(rail).held(rail, query.consumer))
        return json_answer({"items": [asdict(entry) for entry in held]})

    @tells(query=_DifferenceQuery)
    async def compare(self, request: Request) -> Response:
        """Compare a rail's streams with PostgreSQL."""
        _, rail = await self._looking(request)
        query = query_of(_DifferenceQuery, request)
        return json_answer(told_of(await reached(self._of(rail).compare(rail, query.age_s)), None))

    async def release(self, request: Request) -> Response:
        """Give back what a stuck consumer holds."""
        caller, rail, asked = await self._asked(request, StreamRelease)
        streams = self._of(rail)
        await self._note(caller, "stream_release", rail, asked)
        moved = await reached(streams.release(rail, asked.consumer, asked.idle_s))
        return json_answer(StreamMoved(rail=rail, entries=moved))

    async def claim(self, request: Request) -> Response:
        """Hand what a consumer holds to another by name."""
        caller, rail, asked = await self._asked(request, StreamClaim)
        streams = self._of(rail)
        await self._note(caller, "stream_claim", rail, asked)
        moved = await reached(streams.claim(rail, asked.consumer, asked.to, asked.idle_s))
        return json_answer(StreamMoved(rail=rail, entries=moved))

    async def rebuild(self, request: Request) -> Response:
        """Queue jobs without an entry again, from PostgreSQL."""
        caller, rail, asked = await self._asked(request, StreamRepairAsked)
        streams = self._of(rail)
        diff = await reached(streams.compare(rail, asked.age_s))
        await self._note(caller, "stream_rebuild", rail, asked)
        return json_answer(told_of(diff, await reached(streams.queue_again(diff))))

    async def tidy(self, request: Request) -> Response:
        """Trim what is finished, and drop silent consumers."""
        caller, rail, asked = await self._asked(request, StreamRepairAsked)
        streams = self._of(rail)
        await self._note(caller, "stream_janitor", rail, asked)
        return json_answer({"items": [asdict(each) for each in await reached(streams.tidy(rail))]})

    async def reveal(self, request: Request) -> Response:
        """Show a payment's payee and message in the clear; the journal has who looked and why before they are shown."""
        caller, body = await self._operator(request, REVEAL_SCOPE)
        asked = parse(RevealAsked, body, request.headers.get("content-type"))
        intent_id = path_id(request, "intent_id")
        ports = self._core.worker_ports
        async with ports.unit_of_work(background_context(caller)) as uow:
            # The system's people look in whichever tenant has the payment.
            owner = await rail_desk.owner_of(ports, uow, caller, intent_id)
        shown = await reveal(self._core.ports, replace(caller, tenant_id=owner), intent_id, asked.reason)
        return json_answer(RevealedView(payee=shown.payee, message=shown.message))

    async def ask(self, request: Request) -> Response:
        """Ask the provider now what became of a payment."""
        caller, _ = await self._operator(request, DEAD_LETTERS_SCOPE)
        asked = await rail_desk.ask_provider(self._core.worker_ports, caller, path_id(request, "intent_id"))
        return json_answer(ProviderAsked(asked=asked))

    async def _looking(self, request: Request) -> tuple[Caller, str]:
        caller, _ = await self._operator(request, RAILS_SCOPE)
        rail_desk.require_everywhere(caller)
        return caller, str(request.path_params["rail"])

    async def _asked(self, request: Request, model: type[_Asked]) -> tuple[Caller, str, _Asked]:
        caller, body = await self._operator(request, RAILS_SCOPE)
        rail_desk.require_everywhere(caller)
        return caller, str(request.path_params["rail"]), parse(model, body, request.headers.get("content-type"))

    def _of(self, rail: str) -> RepairedStreams:
        return streams_of(self._streams, rail)

    async def _note(self, caller: Caller, action: str, rail: str, asked: Any) -> None:
        told = asked.model_dump(exclude={"reason"})
        await note(self._core.worker_ports, caller, action, rail, asked.reason, **told)
