"""Endpoints of webhooks: made, shown, rotated, tried, and sent to again. Sending itself is `notify`."""

import base64
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import mint_id
from core.domain.webhooks import UrlRefusedError, check_url
from core.services.access.keys import WEBHOOKS_SCOPE, Caller
from core.services.problems import Refusal
from core.services.terms.quotas import Quotas
from core.services.told.notify import binding
from schemas.limits import QuotaObject
from schemas.webhooks import (
    DeliveryState,
    WebhookDeliveryPage,
    WebhookDeliveryView,
    WebhookEndpointList,
    WebhookEndpointRequest,
    WebhookEndpointView,
    WebhookRedriveRequest,
    WebhookRedriveView,
    WebhookSecret,
)

ENDPOINTS_MAX: Final = 20
_SECRET_BYTES: Final = 32
_POSITION_LONGEST: Final = 18


@dataclass(frozen=True, slots=True)
class StoredEndpoint:
    """An endpoint as it is stored: its secret is sealed."""

    id: UUID
    url: str
    event_types: tuple[str, ...]
    ordering: str
    secret: bytes
    position: int


class Endpoints(Protocol):
    """Where endpoints and deliveries are kept, as their tenant."""

    async def insert_endpoint(self, uow: Any, endpoint: StoredEndpoint) -> None: ...
    async def endpoints(self, uow: Any, endpoint_id: UUID | None = None) -> list[WebhookEndpointView]: ...
    async def lock_tenant(self, uow: Any) -> int: ...
    async def delete_endpoint(self, uow: Any, endpoint_id: UUID) -> bool: ...
    async def set_enabled(self, uow: Any, endpoint_id: UUID, enabled: bool) -> bool: ...
    async def rotate(self, uow: Any, endpoint_id: UUID, secret: bytes) -> bool: ...
    async def add_test(self, uow: Any, endpoint_id: UUID) -> int: ...
    async def deliveries(
        self, uow: Any, endpoint_id: UUID, state: DeliveryState | None, before: int | None, limit: int
    ) -> list[WebhookDeliveryView]: ...
    async def redrive_dead(self, uow: Any, endpoint_id: UUID) -> int: ...
    async def replay_since(self, uow: Any, endpoint_id: UUID, since: datetime) -> int | None: ...


class Sealer(Protocol):
    """Seals secrets under the master key."""

    def seal_bytes(self, plain: bytes, *, bound_to: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class WebhookService:
    """Serves the caller's tenant. The key must carry WEBHOOKS and cover every wallet: an endpoint hears of them all."""

    unit_of_work: Callable[[Context], AbstractAsyncContextManager[Any]]
    store: Endpoints
    vault: Sealer
    settled: Callable[[], Awaitable[int]]
    quotas: Quotas
    private: bool
    """Whether a developer lets http and private addresses receive."""

    async def create(self, caller: Caller, asked: WebhookEndpointRequest) -> WebhookSecret:
        """Make an endpoint, which hears of what happens from now on.

        Raises Refusal: operation_not_permitted, webhook_url_refused, too_many_endpoints, limit_exceeded.
        """
        _require(caller)
        try:
            check_url(asked.url, private=self.private)
        except UrlRefusedError as error:
            raise Refusal("webhook_url_refused", str(error), field="url") from error
        endpoint_id, secret = mint_id(time.time_ns() // 1_000_000), _new_secret()
        position = await self.settled()
        async with self.unit_of_work(caller.context()) as uow:
            if await self.store.lock_tenant(uow) >= ENDPOINTS_MAX:
                raise Refusal("too_many_endpoints", f"a tenant has at most {ENDPOINTS_MAX}: delete one first")
            await self.store.insert_endpoint(
                uow,
                StoredEndpoint(
                    endpoint_id,
                    asked.url,
                    tuple(asked.event_types),
                    asked.ordering,
                    self._sealed(endpoint_id, secret),
                    position,
                ),
            )
            await self.quotas.check(uow, caller.tenant_id, QuotaObject.WEBHOOK_ENDPOINTS)
            return WebhookSecret(endpoint=await self._found(uow, endpoint_id), secret=secret)

    async def all(self, caller: Caller) -> WebhookEndpointList:
        """Return the tenant's endpoints. Raises Refusal `operation_not_permitted`."""
        _require(caller)
        async with self.unit_of_work(caller.context()) as uow:
            return WebhookEndpointList(items=await self.store.endpoints(uow))

    async def get(self, caller: Caller, endpoint_id: UUID) -> WebhookEndpointView:
        """Return one endpoint. Raises Refusal: operation_not_permitted, not_found."""
        _require(caller)
        async with self.unit_of_work(caller.context()) as uow:
            return await self._found(uow, endpoint_id)

    async def delete(self, caller: Caller, endpoint_id: UUID) -> WebhookEndpointView:
        """Take an endpoint away: what is due is not sent. Raises Refusal: operation_not_permitted, not_found."""
        _require(caller)
        async with self.unit_of_work(caller.context()) as uow:
            before = await self._found(uow, endpoint_id)
            await self.store.delete_endpoint(uow, endpoint_id)
            return before.model_copy(update={"enabled": False, "disabled_reason": "deleted"})

    async def set_enabled(self, caller: Caller, endpoint_id: UUID, enabled: bool) -> WebhookEndpointView:
        """Switch an endpoint on or off; what is due waits. Raises Refusal: operation_not_permitted, not_found."""
        _require(caller)
        async with self.unit_of_work(caller.context()) as uow:
            await self._found(uow, endpoint_id)
            await self.store.set_enabled(uow, endpoint_id, enabled)
            return await self._found(uow, endpoint_id)

    async def rotate(self, caller: Caller, endpoint_id: UUID) -> WebhookSecret:
        """Make a new secret; messages are signed with it and the one before, until the next rotation.

        Raises Refusal: operation_not_permitted, not_found.
        """
        _require(caller)
        secret = _new_secret()
        async with self.unit_of_work(caller.context()) as uow:
            await self._found(uow, endpoint_id)
            await self.store.rotate(uow, endpoint_id, self._sealed(endpoint_id, secret))
            return WebhookSecret(endpoint=await self._found(uow, endpoint_id), secret=secret)

    async def test(self, caller: Caller, endpoint_id: UUID) -> WebhookDeliveryView:
        """Queue a message of type `test`; return its delivery. Raises Refusal: operation_not_permitted, not_found."""
        _require(caller)
        async with self.unit_of_work(caller.context()) as uow:
            await self._found(uow, endpoint_id)
            position = await self.store.add_test(uow, endpoint_id)
            (made,) = await self.store.deliveries(uow, endpoint_id, None, position + 1, 1)
            return made

    async def deliveries(
        self, caller: Caller, endpoint_id: UUID, state: DeliveryState | None, cursor: str | None, limit: int
    ) -> WebhookDeliveryPage:
        """Return a page of deliveries, newest first.

        Raises Refusal: operation_not_permitted, not_found, cursor_malformed.
        """
        _require(caller)
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _POSITION_LONGEST):
            raise Refusal("cursor_malformed", "use next_cursor as it was given", field="cursor")
        async with self.unit_of_work(caller.context()) as uow:
            await self._found(uow, endpoint_id)
            before = None if cursor is None else int(cursor)
            found = await self.store.deliveries(uow, endpoint_id, state, before, limit + 1)
        following = found[limit - 1].position if len(found) > limit else None
        return WebhookDeliveryPage(items=found[:limit], next_cursor=following)

    async def redrive(self, caller: Caller, endpoint_id: UUID, asked: WebhookRedriveRequest) -> WebhookRedriveView:
        """Send the dead ones again, or everything since a moment, under the ids that they had.

        Raises Refusal: operation_not_permitted, not_found.
        """
        _require(caller)
        async with self.unit_of_work(caller.context()) as uow:
            await self._found(uow, endpoint_id)
            if asked.since is None:
                return WebhookRedriveView(redriven_count=await self.store.redrive_dead(uow, endpoint_id))
            position = await self.store.replay_since(uow, endpoint_id, asked.since)
            return WebhookRedriveView(redriven_count=0, replays_from=None if position is None else str(position + 1))

    async def _found(self, uow: Any, endpoint_id: UUID) -> WebhookEndpointView:
        found = await self.store.endpoints(uow, endpoint_id)
        if not found:
            raise Refusal("not_found", "there is no such endpoint")
        return found[0]

    def _sealed(self, endpoint_id: UUID, secret: str) -> bytes:
        return self.vault.seal_bytes(secret.encode(), bound_to=binding(endpoint_id))


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _require(caller: Caller) -> None:
    caller.require_operation(WEBHOOKS_SCOPE)
    if caller.accounts is not None:
        text = "this key covers some wallets alone, and an endpoint hears of all: use a key of the whole tenant"
        raise Refusal("operation_not_permitted", text)
