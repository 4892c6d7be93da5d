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
from core.store.files import FileStore, MemberTakenError, MemberUnknownError
from schemas.files import FileAgain, FileGivenUp, FilesAsked, FilesHolding, FileStored, FileToStore
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
        asked, file_id = parse(FileToStore, body), mint_id(time.time_ns() // 1_000_000)
        try:
            async with unit_of_work(rail) as uow:
                await store.insert_file(uow, rail, file_id, asked.message_id, asked.body, asked.members)
        except MemberTakenError:
            return json_answer(FileStored(id=None))
        except MemberUnknownError as error:
            raise Refusal("invalid_request", "a member of the file is no job of this rail") from error
        return json_answer(FileStored(id=file_id))

    async def holding(request: Request) -> Response:
        """Ask which live files references are in."""
        body = await read_body(request, BATCH_BODY_MAX_BYTES)
        rail, _ = await rail_of(request, body)
        async with unit_of_work(rail) as uow:
            return json_answer(FilesHolding(files=await store.holding(uow, rail, parse(FilesAsked, body).references)))

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
        ("POST", f"{_PATH}/{{file_id}}/again", again, FileAgain, 200, None),
        ("POST", f"{_PATH}/{{file_id}}/give-up", give_up, FileGivenUp, 200, None),
    ]
