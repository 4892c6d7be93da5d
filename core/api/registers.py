"""The internal API of registers, for adapters alone: a rail's key sees only its rail's."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final
from uuid import UUID

from fastapi import Request, Response

from core.api.answers import json_answer
from core.api.requests import BATCH_BODY_MAX_BYTES, parse, read_body
from core.api.signed_routes import Route
from core.domain.register_records import record_of
from core.services.problems import Refusal
from core.services.recon.registers import RegisterPorts, close_register
from schemas.registers import (
    RegisterClosed,
    RegisterFile,
    RegisterFileView,
    RegisterLines,
    RegisterOpened,
    RegistersWanted,
    RegisterTaken,
)

_PATH: Final = "/internal/v1/registers"


def register_routes(
    ports: RegisterPorts,
    unit_of_work: Callable[[str], AbstractAsyncContextManager[Any]],
    rail_of: Callable[[Request, bytes], Awaitable[tuple[str, str]]],
) -> list[Route]:
    """Return the routes; `rail_of` says whose key signed."""

    async def wanted(request: Request) -> Response:
        """Ask which registers the core wants."""
        rail, _ = await rail_of(request, await read_body(request))
        async with unit_of_work(rail) as uow:
            return json_answer(RegistersWanted(days=await ports.registers.wanted(uow, rail)))

    async def open_register(request: Request) -> Response:
        """Begin to bring a register, from its first line."""
        body = await read_body(request)
        rail, _ = await rail_of(request, body)
        asked = parse(RegisterOpened, body)
        async with unit_of_work(rail) as uow:
            return json_answer(RegisterFile(file_id=await ports.registers.open(uow, rail, asked, "FETCHED")))

    async def take(request: Request, file_id: UUID) -> Response:
        """Bring some lines; a repeat changes nothing."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        rail, _ = await rail_of(request, body)
        asked = parse(RegisterLines, body)
        async with unit_of_work(rail) as uow:
            if not await ports.registers.is_loading(uow, rail, file_id):
                raise Refusal("not_found", "no register is coming under this id")
            taken = await ports.registers.take(uow, file_id, map(record_of, asked.lines))
        return json_answer(RegisterTaken(taken=taken))

    async def complete(request: Request, file_id: UUID) -> Response:
        """Say that a register is whole, or that the provider has none; from now on it counts."""
        body = await read_body(request)
        rail, _ = await rail_of(request, body)
        asked = parse(RegisterClosed, body)
        async with unit_of_work(rail) as uow:
            return json_answer(await close_register(uow, ports, rail, file_id, asked))

    return [
        ("POST", f"{_PATH}/wanted", wanted, RegistersWanted, 200, None),
        ("POST", _PATH, open_register, RegisterFile, 200, RegisterOpened),
        ("POST", f"{_PATH}/{{file_id}}/lines", take, RegisterTaken, 200, RegisterLines),
        ("POST", f"{_PATH}/{{file_id}}/complete", complete, RegisterFileView, 200, RegisterClosed),
    ]
