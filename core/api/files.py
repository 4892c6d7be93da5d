"""The internal API of files that pay, for adapters alone: a key sees its rail's files, of the tenants it serves."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final
from uuid import UUID

from fastapi import Request, Response

from core.api.answers import json_answer
from core.api.requests import BATCH_BODY_MAX_BYTES, parse, read_body
from core.api.signed_routes import Route
from core.services.access.keys import Caller
from core.services.problems import Refusal
from core.store.database import UnitOfWork
from core.store.settling.files import FileStore, MemberTakenError, MemberUnknownError
from schemas.files import (
    FileAgain,
    FileGivenUp,
    FileMember,
    FilesAsked,
    FilesHolding,
    FileStored,
    FileToStore,
    ReferenceBuried,
    ReferenceToBury,
)
from schemas.ids import mint_id

CallerOf = Callable[[Request, bytes], Awaitable[Caller]]
UnitOfWorkOf = Callable[[str], AbstractAsyncContextManager[UnitOfWork]]
_PATH: Final = "/internal/v1/files"


def file_routes(store: FileStore, unit_of_work: UnitOfWorkOf, caller_of: CallerOf) -> list[Route]:
    """Return the routes under /internal/v1/files; `caller_of` says which rail's key signed, and for which tenants."""

    async def store_file(request: Request) -> Response:
        """Store a file that pays, before its first byte leaves."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        caller = await caller_of(request, body)
        rail = caller.rail or ""
        asked = parse(FileToStore, body)
        try:
            async with unit_of_work(rail) as uow:
                await store.insert_file(uow, rail, asked.id, asked.message_id, asked.body, asked.members, caller.serves)
        except MemberTakenError:
            return json_answer(FileStored(stored=False))
        except MemberUnknownError as error:
            text = "a member of the file is no open job of this rail"
            raise Refusal("invalid_request", text, field="members") from error
        return json_answer(FileStored(stored=True))

    async def holding(request: Request) -> Response:
        """Ask which live files references are in."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        caller = await caller_of(request, body)
        rail = caller.rail or ""
        asked = parse(FilesAsked, body)
        async with unit_of_work(rail) as uow:
            return json_answer(FilesHolding(files=await store.holding(uow, rail, asked.references, caller.serves)))

    async def bury(request: Request) -> Response:
        """See to it that no file ever holds a reference."""
        body = await read_body(request)
        caller = await caller_of(request, body)
        rail = caller.rail or ""
        asked, file_id = parse(ReferenceToBury, body), mint_id(time.time_ns() // 1_000_000)
        member = FileMember(job_id=asked.job_id, reference=asked.reference)
        try:
            async with unit_of_work(rail) as uow:
                await store.bury(uow, rail, file_id, member, caller.serves)
        except MemberUnknownError as error:
            raise _not_served() from error
        except MemberTakenError:
            async with unit_of_work(rail) as uow:
                return json_answer(ReferenceBuried(buried=await store.is_buried(uow, rail, asked.reference)))
        return json_answer(ReferenceBuried(buried=True))

    async def again(request: Request, file_id: UUID) -> Response:
        """Take a file's bytes, to hand it in again."""
        caller = await caller_of(request, await read_body(request))
        rail = caller.rail or ""
        async with unit_of_work(rail) as uow:
            await _require_served(store, uow, file_id, caller)
            found = await store.again(uow, rail, file_id)
        return json_answer(FileAgain(body=found))

    async def give_up(request: Request, file_id: UUID) -> Response:
        """Let the members of a file go that never left."""
        caller = await caller_of(request, await read_body(request))
        rail = caller.rail or ""
        async with unit_of_work(rail) as uow:
            await _require_served(store, uow, file_id, caller)
            given_up = await store.give_up(uow, rail, file_id)
        return json_answer(FileGivenUp(given_up=given_up))

    return [
        ("POST", _PATH, store_file, FileStored, 200, FileToStore),
        ("POST", f"{_PATH}/holding", holding, FilesHolding, 200, FilesAsked),
        ("POST", f"{_PATH}/bury", bury, ReferenceBuried, 200, ReferenceToBury),
        ("POST", f"{_PATH}/{{file_id}}/again", again, FileAgain, 200, None),
        ("POST", f"{_PATH}/{{file_id}}/give-up", give_up, FileGivenUp, 200, None),
    ]


def _not_served() -> Refusal:
    return Refusal("operation_not_permitted", "this key does not serve the tenant of every payment in the file")


async def _require_served(store: FileStore, uow: UnitOfWork, file_id: UUID, caller: Caller) -> None:
    if caller.serves is not None and not await store.is_of(uow, caller.rail or "", file_id, caller.serves):
        raise _not_served()
