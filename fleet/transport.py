"""How the client reads what refuses a request, and sends a file that is too long for the memory."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from typing import IO, Any, Final, cast

import httpx

from schemas.api import Problem

_PIECE_BYTES: Final = 256 * 1024


def problem_of(answer: httpx.Response) -> Problem:
    """Return the problem details of an answer, or some that say that it has none."""
    try:
        return Problem.model_validate_json(answer.content, extra="ignore")
    except ValueError:
        return Problem(
            type="about:blank",
            title=answer.reason_phrase or "error",
            status=answer.status_code,
            code="not_a_problem",
            detail=f"the core answered {answer.status_code} without problem details: is this the core's address?",
        )


def retry_after_s_of(answer: httpx.Response) -> int | None:
    """Return how long the core asks to wait, a minute at most; None where it does not say."""
    told = answer.headers.get("Retry-After", "")
    return min(int(told), 60) if told.isascii() and told.isdigit() else None


def measured(file: IO[bytes]) -> tuple[str, int]:
    """Return the SHA-256 of a file, in hexadecimal, and its length in bytes."""
    file.seek(0)
    digest = hashlib.file_digest(cast("Any", file), "sha256").hexdigest()
    return digest, file.seek(0, os.SEEK_END)


async def pieces_of(file: IO[bytes]) -> AsyncIterator[bytes]:
    """Yield a file from its beginning, a piece at a time."""
    file.seek(0)
    while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
        yield piece
