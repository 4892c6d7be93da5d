"""What the routes of the public listener share: how one is declared, and who has signed the request."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request

from core.api.bearers import bearer_of, person_of
from core.api.requests import BODY_MAX_BYTES, read_body, signed_by
from core.bootstrap import Core
from core.services.access.acting import confined, reaching
from core.services.access.keys import Caller
from core.services.problems import Refusal

Route = tuple[str, str, Callable[..., Any], type[BaseModel], int, type[BaseModel] | None]
"""Method, path, handler, answer, status and body of one route."""


class SignedRoutes:
    """Routes whose requests are signed with a service key of this core, or carry a person's bearer token."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def _signed(self, request: Request, limit_bytes: int = BODY_MAX_BYTES) -> tuple[Caller, bytes]:
        """Return who signed, confined to the wallets of the user that the request is made for, and the body."""
        caller, body = await self._signed_alone(request, limit_bytes)
        if caller.acting is not None or caller.acts_for_users:
            caller = await confined(self._core.ports, caller, request.method, request.url.path)
        return caller, body

    async def _signed_alone(self, request: Request, limit_bytes: int = BODY_MAX_BYTES) -> tuple[Caller, bytes]:
        """Return who signed, and the body; whom it is made for is the handler's to check."""
        body = await read_body(request, limit_bytes)
        if (token := bearer_of(request)) is not None:
            return await person_of(self._core, request, token), body
        return await signed_by(request, body, self._core.authenticator, "service"), body

    async def _renewed(self, request: Request, caller: Caller) -> Caller | None:
        """Return who has signed as they are now, for what goes on long after it was asked for.

        None where the same request would be refused: the key was revoked, the token is over, the person was let go.
        """
        try:
            if (token := bearer_of(request)) is not None:
                return await person_of(self._core, request, token)
            key = await self._core.authenticator.living(caller.key_id)
            return await reaching(self._core.ports, replace(key, acting=caller.acting))
        except Refusal:
            return None

    async def _operator(self, request: Request, scope: str, limit_bytes: int = BODY_MAX_BYTES) -> tuple[Caller, bytes]:
        caller, body = await self._signed(request, limit_bytes)
        caller.require_operation(scope)
        return caller, body
