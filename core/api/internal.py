"""The internal API: permits, evidence and registration, for adapters alone. A rail's key sees only its rail."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import orjson
from fastapi import APIRouter, Request, Response

from core.api.requests import BATCH_BODY_MAX_BYTES, parse, read_body
from core.services.permits import PermitPorts, grant_permits
from core.services.problems import Refusal
from core.services.rails import RailUnknownError, TimingRefusedError, register
from schemas.permits import PermitRequest
from schemas.rails import EvidenceBatch, RailRegistration

_JSON = "application/json"


class RailCaller(Protocol):
    """Who signed the request."""

    @property
    def key_id(self) -> str: ...
    @property
    def rail(self) -> str | None: ...


class InternalPorts(PermitPorts, Protocol):
    """What the internal API works with; `unit_of_work` opens one under the worker role."""

    @property
    def evidence(self) -> Any: ...

    def unit_of_work(self, actor: str) -> AbstractAsyncContextManager[Any]: ...


Authenticate = Callable[[Request, bytes], Awaitable[RailCaller]]
"""Checks the signature of a rail's key. Raises Refusal."""


def internal_router(ports: InternalPorts, authenticate: Authenticate) -> APIRouter:
    """Return the routes under /internal/v1."""
    router = APIRouter(prefix="/internal/v1")

    async def permits(request: Request) -> Response:
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        rail, key_id = await _rail_of(request, body)
        asked = parse(PermitRequest, body)
        try:
            async with ports.unit_of_work(f"rail:{rail}") as uow:
                answers = await grant_permits(uow, ports, rail, key_id, asked)
        except RailUnknownError as error:
            raise Refusal("rail_unavailable", "register the rail before asking for permits") from error
        return _json({"answers": [answer.model_dump(mode="json") for answer in answers]})

    async def evidence(request: Request) -> Response:
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        rail, _ = await _rail_of(request, body)
        batch = parse(EvidenceBatch, body)
        async with ports.unit_of_work(f"rail:{rail}") as uow:
            await ports.evidence.insert_evidence(uow, rail, batch.items)
        return _json({"kept": len(batch.items)})

    async def registration(request: Request, rail: str) -> Response:
        body = await read_body(request)
        own, _ = await _rail_of(request, body)
        declared = parse(RailRegistration, body)
        if rail != own or declared.rail != own:
            raise Refusal("operation_not_permitted", "a rail key registers its own rail only")
        try:
            async with ports.unit_of_work(f"rail:{own}") as uow:
                version = await register(uow, ports.rails, declared)
        except TimingRefusedError as error:
            raise Refusal("invalid_request", str(error)) from error
        return _json({"rail": own, "version": version})

    async def _rail_of(request: Request, body: bytes) -> tuple[str, str]:
        caller = await authenticate(request, body)
        if caller.rail is None:
            raise Refusal("operation_not_permitted", "a rail's key is needed here")
        return caller.rail, caller.key_id

    router.add_api_route("/permits", permits, methods=["POST"])
    router.add_api_route("/evidence", evidence, methods=["POST"])
    router.add_api_route("/rails/{rail}", registration, methods=["PUT"])
    return router


def _json(content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), media_type=_JSON)
