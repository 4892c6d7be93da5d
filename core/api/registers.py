"""The internal API of registers, for adapters alone: a key sees its rail's, of accounts whose tenants it serves."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final
from uuid import UUID

from fastapi import Request, Response

from core.api.answers import json_answer
from core.api.requests import BATCH_BODY_MAX_BYTES, parse, read_body
from core.api.served import require_served, serves_account
from core.api.signed_routes import Route
from core.domain.register_records import record_of
from core.domain.registers import Account
from core.services.access.keys import Caller
from core.services.problems import Refusal
from core.services.recon.registers import RegisterPorts, close_register
from core.store.database import UnitOfWork
from schemas.registers import (
    RegisterAsker,
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
    unit_of_work: Callable[[str], AbstractAsyncContextManager[UnitOfWork]],
    caller_of: Callable[[Request, bytes], Awaitable[Caller]],
) -> list[Route]:
    """Return the routes; `caller_of` says whose key signed, and for which tenants."""

    async def wanted(request: Request) -> Response:
        """Ask which registers the core wants of the accounts whose tenants the key serves."""
        body = await read_body(request)
        caller = await caller_of(request, body)
        rail, asked = caller.rail or "", parse(RegisterAsker, body)
        async with unit_of_work(rail) as uow:
            served = None if caller.serves is None else await _served(uow, caller)
            return json_answer(RegistersWanted(days=await ports.registers.wanted(uow, rail, served, asked.asker)))

    async def open_register(request: Request) -> Response:
        """Begin to bring a register, from its first line."""
        body = await read_body(request)
        caller = await caller_of(request, body)
        rail, asked = caller.rail or "", parse(RegisterOpened, body)
        async with unit_of_work(rail) as uow:
            await require_served(uow, caller, asked.provider_account, asked.environment)
            return json_answer(RegisterFile(file_id=await ports.registers.open(uow, rail, asked, "FETCHED")))

    async def take(request: Request, file_id: UUID) -> Response:
        """Bring some lines; a repeat changes nothing."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        caller = await caller_of(request, body)
        rail, asked = caller.rail or "", parse(RegisterLines, body)
        async with unit_of_work(rail) as uow:
            await _require_own(uow, caller, file_id)
            if not await ports.registers.is_loading(uow, rail, file_id):
                raise _not_coming()
            taken = await ports.registers.take(uow, file_id, map(record_of, asked.lines))
        return json_answer(RegisterTaken(taken=taken))

    async def complete(request: Request, file_id: UUID) -> Response:
        """Say that a register is whole, or that the provider has none; from now on it counts."""
        body = await read_body(request)
        caller = await caller_of(request, body)
        rail, asked = caller.rail or "", parse(RegisterClosed, body)
        async with unit_of_work(rail) as uow:
            await _require_own(uow, caller, file_id)
            return json_answer(await close_register(uow, ports, rail, file_id, asked))

    async def _served(uow: UnitOfWork, caller: Caller) -> list[Account]:
        accounts = [each for each in await ports.registers.accounts(uow) if each.rail == caller.rail]
        return [each for each in accounts if await serves_account(uow, caller, each.provider_account, each.environment)]

    async def _require_own(uow: UnitOfWork, caller: Caller, file_id: UUID) -> None:
        """A register of an account that the key does not serve is none to it."""
        if caller.serves is None:
            return
        found = await ports.registers.find(uow, file_id)
        if found is None or not await serves_account(uow, caller, found.provider_account, found.environment):
            raise _not_coming()

    return [
        ("POST", f"{_PATH}/wanted", wanted, RegistersWanted, 200, RegisterAsker),
        ("POST", _PATH, open_register, RegisterFile, 200, RegisterOpened),
        ("POST", f"{_PATH}/{{file_id}}/lines", take, RegisterTaken, 200, RegisterLines),
        ("POST", f"{_PATH}/{{file_id}}/complete", complete, RegisterFileView, 200, RegisterClosed),
    ]


def _not_coming() -> Refusal:
    return Refusal("not_found", "no register is coming under this id")
