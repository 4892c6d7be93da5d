"""What is read by hand for speed is read as the framework reads it."""

from collections.abc import Iterable

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from core.api.hot_paths import HotPaths
from core.api.requests import read_body
from core.services.problems import Refusal

_HEADERS = [
    (b"host", b"fleet"),
    (b"idempotency-key", b"first"),
    (b"idempotency-key", b"second"),
    (b"fleet-key", b"\xe9"),
]


def _scope() -> Scope:
    return {"type": "http", "method": "POST", "path": "/hot", "headers": list(_HEADERS), "query_string": b""}


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _receiving(messages: Iterable[Message]) -> Receive:
    waiting = iter(messages)

    async def receive() -> Message:
        return next(waiting)

    return receive


async def _unknown(_: Scope, __: Receive, ___: Send) -> None:
    raise AssertionError("the hot route was not found")


async def test_headers_of_a_hot_request_are_found_as_those_of_any() -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        return Response()

    async def send(_: Message) -> None: ...

    await HotPaths(_unknown, {("POST", "/hot"): handler}, ())(_scope(), _nothing, send)
    hot, plain = seen[0].headers, Request(_scope()).headers
    for name in ("Idempotency-Key", "IDEMPOTENCY-KEY", "Fleet-Key", "Host", "X-Nothing"):
        assert hot.get(name) == plain.get(name)
        assert hot.get(name, "none") == plain.get(name, "none")
        assert (name in hot) == (name in plain)
    assert hot["idempotency-key"] == plain["idempotency-key"] == "first"
    assert hot.getlist("Idempotency-Key") == ["first", "second"]
    with pytest.raises(KeyError):
        hot["X-Nothing"]


async def test_a_body_that_comes_in_pieces_is_read_whole() -> None:
    pieces: list[Message] = [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b"c"},
    ]
    assert await read_body(Request(_scope(), _receiving(pieces)), 3) == b"abc"
    with pytest.raises(Refusal, match="at most 2 bytes"):
        await read_body(Request(_scope(), _receiving(pieces)), 2)


async def test_who_leaves_in_the_middle_of_a_body_has_asked_for_nothing() -> None:
    left: list[Message] = [{"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.disconnect"}]
    with pytest.raises(ClientDisconnect):
        await read_body(Request(_scope(), _receiving(left)))
