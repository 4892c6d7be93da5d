"""Limits over HTTP: set, list and disable them under a key that names LIMITS; show what a wallet has left."""

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import parse, path_id
from core.api.signed_routes import Route, SignedRoutes
from core.services.access.keys import LIMITS_SCOPE, Caller
from core.services.terms.set_limits import disable_limit, list_limits, list_versions, set_limit, set_tier, wallet_limits
from core.store.terms.limits import stored_quotas
from schemas.limits import LimitList, LimitRequest, LimitView, QuotaObject, TierRequest, WalletLimits


class LimitRoutes(SignedRoutes):
    """The routes of limits."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("POST", "/v1/limits", self.set_limit, LimitView, 201, LimitRequest),
            ("GET", "/v1/limits", self.list_limits, LimitList, 200, None),
            ("GET", "/v1/limits/{limit_id}/versions", self.list_versions, LimitList, 200, None),
            ("POST", "/v1/limits/{limit_id}/disable", self.disable_limit, LimitView, 200, None),
            ("GET", "/v1/wallets/{wallet_id}/limits", self.wallet_limits, WalletLimits, 200, None),
            ("POST", "/v1/wallets/{wallet_id}/tier", self.set_tier, WalletLimits, 200, TierRequest),
        )

    @tells(repeats=True)
    async def set_limit(self, request: Request) -> Response:
        """Keep a limit as the next version of its name; a repeat answers 200 and changes nothing."""
        caller, body = await self._operator(request, LIMITS_SCOPE)
        asked = parse(LimitRequest, body, request.headers.get("content-type"))
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            store, actor = self._core.ports.limit_store, caller.context().actor
            view, is_new = await set_limit(uow, store, caller.tenant_id, actor, asked)
            if is_new:
                await stored_quotas().check(uow, caller.tenant_id, QuotaObject.LIMITS)
        self._forget(caller)
        return json_answer(view, 201 if is_new else 200)

    async def list_limits(self, request: Request) -> Response:
        """List the newest version of every limit, disabled ones too."""
        caller, _ = await self._operator(request, LIMITS_SCOPE)
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            found = await list_limits(uow, self._core.ports.limit_store, caller.tenant_id)
        return json_answer(LimitList(items=found))

    async def list_versions(self, request: Request) -> Response:
        """List every version of a limit, the newest first."""
        caller, _ = await self._operator(request, LIMITS_SCOPE)
        limit_id = path_id(request, "limit_id")
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            found = await list_versions(uow, self._core.ports.limit_store, caller.tenant_id, limit_id)
        return json_answer(LimitList(items=found))

    async def disable_limit(self, request: Request) -> Response:
        """Limit nothing by this any more; what payments hold of it ends with them."""
        caller, _ = await self._operator(request, LIMITS_SCOPE)
        limit_id, actor = path_id(request, "limit_id"), caller.context().actor
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            view = await disable_limit(uow, self._core.ports.limit_store, caller.tenant_id, actor, limit_id)
        self._forget(caller)
        return json_answer(view)

    async def wallet_limits(self, request: Request) -> Response:
        """Show every limit of a wallet now: used, held, left and when it renews."""
        caller, _ = await self._signed(request)
        wallet_id = path_id(request, "wallet_id")
        caller.require_account(wallet_id)
        return json_answer(await self._standing(caller, request))

    async def set_tier(self, request: Request) -> Response:
        """Give a wallet its tier, for payments from now on."""
        caller, body = await self._operator(request, LIMITS_SCOPE)
        asked = parse(TierRequest, body, request.headers.get("content-type"))
        wallet_id = path_id(request, "wallet_id")
        caller.require_account(wallet_id)
        async with self._core.ports.unit_of_work(caller.context()) as uow:
            await set_tier(uow, self._core.ports.limit_store, caller.tenant_id, wallet_id, asked.tier)
        return json_answer(await self._standing(caller, request))

    def _forget(self, caller: Caller) -> None:
        # This process obeys at once; the others within the second that a book is kept.
        self._core.ports.limits.forget(caller.tenant_id)
        self._core.worker_ports.limits.forget(caller.tenant_id)

    async def _standing(self, caller: Caller, request: Request) -> WalletLimits:
        ports, wallet_id = self._core.ports, path_id(request, "wallet_id")
        async with ports.unit_of_work(caller.context()) as uow:
            now = (await ports.intents.moment(uow)).now
            return await wallet_limits(uow, ports.limit_store, caller.tenant_id, wallet_id, now)
