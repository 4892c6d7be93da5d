"""Requests that every payment makes, answered before the framework is asked: its layers cost as much as our work."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from core.api.answers import answer_to

Handler = Callable[[Request], Awaitable[Response]]


class HotPaths:
    """An application whose few hot routes, by method and path, go straight to their handlers.

    The handlers read, check and answer as the application's own routes do, which describe them for OpenAPI.
    """

    def __init__(
        self, app: ASGIApp, hot: Mapping[tuple[str, str], Handler], passing: tuple[type[Exception], ...]
    ) -> None:
        self._app, self._hot, self._passing = app, hot, passing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection as ASGI has it."""
        handler = self._hot.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if handler is None:
            await self._app(scope, receive, send)
            return
        # Whoever measures takes it for the route's pattern: these paths have no parameters.
        scope["hot_path"] = scope["path"]
        try:
            answer = await handler(_HotRequest(scope, receive))
        except Exception as error:  # noqa: BLE001 - each failure has its problem, as in the application
            answer = answer_to(error, scope["path"], self._passing)
        await answer(scope, receive, send)


class _HotRequest(Request):
    """A request whose headers are read once: each is asked for by name, and there are ten."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._headers = _ReadHeaders(scope)


class _ReadHeaders(Headers):
    """Headers that are found by one look instead of a walk; of several of one name the first counts, as in any."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope=scope)
        self._first = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(self._list)}

    def __getitem__(self, key: str) -> str:
        return self._first[key.lower()]

    def get(self, key: str, default: Any = None) -> Any:
        return self._first.get(key.lower(), default)
