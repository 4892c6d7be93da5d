"""The internal API of files that pay, for adapters alone: a rail's key sees only its rail's files."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final
from uuid import UUID

from fastapi import Request, Response

from core.api.answers import json_answer
from core.api.requests import BATCH_BODY_MAX_BYTES, parse, read_body
from core.api.signed_routes import Route
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

RailOf = Callable[[Request, bytes], Awaitable[tuple[str, str]]]
UnitOfWorkOf = Callable[[str], AbstractAsyncContextManager[UnitOfWork]]
_PATH: Final = "/internal/v1/files"


def file_routes(store: FileStore, unit_of_work: UnitOfWorkOf, rail_of: RailOf) -> list[Route]:
    """Return the routes under /internal/v1/files."""

    async def store_file(request: Request) -> Response:
        """Store a file that pays, before its first byte leaves."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        rail, _ = await rail_of(request, body)
        asked = parse(FileToStore, body)
        try:
            async with unit_of_work(rail) as uow:
                await store.insert_file(uow, rail, asked.id, asked.message_id, asked.body, asked.members)
        except MemberTakenError:
            return json_answer(FileStored(stored=False))
        except MemberUnknownError as error:
            text = "a member of the file is no open job of this rail"
            raise Refusal("invalid_request", text, field="members") from error
        return json_answer(FileStored(stored=True))

    async def holding(request: Request) -> Response:
        """Ask which live files references are in."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        rail, _ = await rail_of(request, body)
        async with unit_of_work(rail) as uow:
            return json_answer(FilesHolding(files=await store.holding(uow, rail, parse(FilesAsked, body).references)))

    async def bury(request: Request) -> Response:
        """See to it that no file ever holds a reference."""
        body = await read_body(request)
        rail, _ = await rail_of(request, body)
        asked, file_id = parse(ReferenceToBury, body), mint_id(time.time_ns() // 1_000_000)
        member = FileMember(job_id=asked.job_id, reference=asked.reference)
        try:
            async with unit_of_work(rail) as uow:
                await store.bury(uow, rail, file_id, member)
        except MemberTakenError:
            async with unit_of_work(rail) as uow:
                return json_answer(ReferenceBuried(buried=await store.is_buried(uow, rail, asked.reference)))
        return json_answer(ReferenceBuried(buried=True))

    async def again(request: Request, file_id: UUID) -> Response:
        """Take a file's bytes, to hand it in again."""
        rail, _ = await rail_of(request, await read_body(request))
        async with unit_of_work(rail) as uow:
            found = await store.again(uow, rail, file_id)
        return json_answer(FileAgain(body=found))

    async def give_up(request: Request, file_id: UUID) -> Response:
        """Let the members of a file go that never left."""
        rail, _ = await rail_of(request, await read_body(request))
        async with unit_of_work(rail) as uow:
            given_up = await store.give_up(uow, rail, file_id)
        return json_answer(FileGivenUp(given_up=given_up))

    return [
        ("POST", _PATH, store_file, FileStored, 200, FileToStore),
        ("POST", f"{_PATH}/holding", holding, FilesHolding, 200, FilesAsked),
        ("POST", f"{_PATH}/bury", bury, ReferenceBuried, 200, ReferenceToBury),
        ("POST", f"{_PATH}/{{file_id}}/again", again, FileAgain, 200, None),
        ("POST", f"{_PATH}/{{file_id}}/give-up", give_up, FileGivenUp, 200, None),
    ]
