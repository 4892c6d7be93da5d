"""The load of single payments measures what was answered, and nothing where an answer was not what was asked for."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bench.load import Load
from bench.posts import RefusedError, payments, post_all
from fleet.stack.processes import free_port
from fleet.stack.stack import StackInfo
from wire.listener import listener, serve_until
from wire.signing import (
    IDEMPOTENCY_HEADER,
    KEY_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    canonical,
    verify,
)

_SECRET = "s" * 43


class _Answers:
    """Answers payments as it is told to, and keeps what it was asked."""

    def __init__(self, refuse_from: int) -> None:
        self.bodies: list[bytes] = []
        self.keys: set[str] = set()
        self.forged = 0
        self._refuse_from = refuse_from

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        self.bodies.append(body)
        self.keys.add(request.headers[IDEMPOTENCY_HEADER])
        signed = canonical(
            method=request.method,
            path=request.url.path,
            query="",
            body=body,
            key_id=request.headers[KEY_HEADER],
            timestamp=request.headers[TIMESTAMP_HEADER],
            nonce=request.headers[NONCE_HEADER],
            idempotency_key=request.headers[IDEMPOTENCY_HEADER],
        )
        self.forged += not verify([_SECRET], signed, request.headers[SIGNATURE_HEADER])
        status = 201 if len(self.bodies) < self._refuse_from else 503
        await Response(b"x" * 1_000_000, status)(scope, receive, send)


@asynccontextmanager
async def _answering(refuse_from: int = 1_000) -> AsyncIterator[tuple[_Answers, Load]]:
    answers, port, stopping = _Answers(refuse_from), free_port(), asyncio.Event()
    server = listener(answers, "127.0.0.1", port, 1)
    serving = asyncio.create_task(serve_until(stopping, [server]))
    async with asyncio.timeout(30):
        while not server.started:  # noqa: ASYNC110 - the server tells nobody, and it is bounded above
            await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{port}"
    info = StackInfo(url, url, "key", _SECRET, "", "", "")
    async with aiohttp.ClientSession() as http:
        yield answers, Load(info, http, wallet_id="wallet")
    stopping.set()
    await serving


async def test_each_request_is_sent_once_is_signed_and_its_answer_is_read_to_the_end() -> None:
    async with _answering() as (answers, load):
        requests = payments(load, range(40))
        assert await post_all(load.info.public_url, requests, connections=4, seconds=30) > 0
    assert sorted(hashlib.sha256(body).digest() for body in answers.bodies) == sorted(
        hashlib.sha256(orjson.dumps(load.intent(number))).digest() for number in range(40)
    )
    assert len(answers.keys) == 40
    assert answers.forged == 0


async def test_a_refusal_among_the_answers_fails_the_measurement() -> None:
    async with _answering(refuse_from=20) as (_, load):
        with pytest.raises(RefusedError, match="503"):
            await post_all(load.info.public_url, payments(load, range(40)), connections=4, seconds=30)


async def test_no_request_is_sent_once_the_time_is_over() -> None:
    async with _answering() as (answers, load):
        await post_all(load.info.public_url, payments(load, range(40)), connections=4, seconds=0)
    assert answers.bodies == []
