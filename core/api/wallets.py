"""Wallets over HTTP: opened, shown, frozen and closed."""

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import Page, parse, path_id, path_text, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.domain.ledger import AccountChange
from core.services.wallets.histories import EntryFilter, read_balance_at, read_history
from core.services.wallets.wallet_states import change_wallet, list_events, set_external_id
from schemas.api import WalletHistory, WalletPage, WalletRequest, WalletView
from schemas.base import AnyMoment
from schemas.events import IntentState
from schemas.operations import OperationType
from schemas.wallets import (
    EntrySign,
    ExternalId,
    ExternalIdRequest,
    WalletBalanceAt,
    WalletChangeRequest,
    WalletEventList,
)


class _HistoryQuery(Page):
    begin: Annotated[AnyMoment | None, Field(alias="from")] = None
    end: Annotated[AnyMoment | None, Field(alias="to")] = None
    operation: OperationType | None = None
    state: IntentState | None = None
    sign: EntrySign | None = None
    counterparty_wallet_id: UUID | None = None
    comment: Annotated[str, Field(min_length=1, max_length=140)] | None = None


class _BalanceQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    at: AnyMoment | None = None


class _WalletQuery(Page):
    external_id: ExternalId | None = None


class WalletRoutes(SignedRoutes):
    """The routes of wallets."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        changes: tuple[Route, ...] = tuple(
            ("POST", f"/v1/wallets/{{wallet_id}}/{change}", self._change(change), WalletView, 200, WalletChangeRequest)
            for change in AccountChange
        )
        return (
            ("POST", "/v1/wallets", self.create, WalletView, 201, WalletRequest),
            ("GET", "/v1/wallets", self.list_all, WalletPage, 200, None),
            ("GET", "/v1/owners/{owner}/wallets", self.owned, WalletPage, 200, None),
            ("GET", "/v1/wallets/{wallet_id}", self.show, WalletView, 200, None),
            ("GET", "/v1/wallets/{wallet_id}/history", self.history, WalletHistory, 200, None),
            ("GET", "/v1/wallets/{wallet_id}/balance", self.balance, WalletBalanceAt, 200, None),
            ("GET", "/v1/wallets/{wallet_id}/events", self.events, WalletEventList, 200, None),
            ("POST", "/v1/wallets/{wallet_id}/external-id", self.set_external_id, WalletView, 200, ExternalIdRequest),
            *changes,
        )

    @tells(repeats=True)
    async def create(self, request: Request) -> Response:
        """Open a wallet."""
        caller, body = await self._signed(request)
        asked = parse(WalletRequest, body, request.headers.get("content-type"))
        wallet, is_new = await self._core.wallets.create(caller, asked)
        return json_answer(wallet, 201 if is_new else 200)

    async def show(self, request: Request) -> Response:
        """Show a wallet with its balances."""
        caller, _ = await self._signed(request)
        return json_answer(await self._core.wallets.get(caller, path_id(request, "wallet_id")))

    @tells(query=_HistoryQuery)
    async def history(self, request: Request) -> Response:
        """List a wallet's posted entries, newest first."""
        caller, _ = await self._signed(request)
        query = query_of(_HistoryQuery, request)
        wanted = EntryFilter(
            **query.model_dump(exclude={"cursor", "limit", "begin", "end"}), begin=query.begin, end=query.end
        )
        wallet_id = path_id(request, "wallet_id")
        return json_answer(
            await read_history(
                self._core.ports,
                caller,
                wallet_id,
                wanted,
                query.cursor,
                query.limit,
                self._core.read_ports.unit_of_work,
            )
        )

    @tells(query=_BalanceQuery)
    async def balance(self, request: Request) -> Response:
        """Show what a wallet owned, and what of it was held, just before a moment, or now."""
        caller, _ = await self._signed(request)
        at = query_of(_BalanceQuery, request).at
        return json_answer(await read_balance_at(self._core.ports, caller, path_id(request, "wallet_id"), at))

    @tells(query=_WalletQuery)
    async def list_all(self, request: Request) -> Response:
        """List wallets, oldest first, or find the one that has the client's own id."""
        caller, _ = await self._signed(request)
        query = query_of(_WalletQuery, request)
        if query.external_id is not None:
            return json_answer(await self._core.wallets.named(caller, query.external_id))
        return json_answer(await self._core.wallets.owned(caller, None, query.cursor, query.limit))

    @tells(query=Page)
    async def owned(self, request: Request) -> Response:
        """List an owner's wallets, of every currency."""
        caller, _ = await self._signed(request)
        query = query_of(Page, request)
        owner = path_text(request, "owner")
        return json_answer(await self._core.wallets.owned(caller, owner, query.cursor, query.limit))

    async def events(self, request: Request) -> Response:
        """List what changed a wallet beside its money, oldest first."""
        caller, _ = await self._signed(request)
        return json_answer(await list_events(self._core.ports, caller, path_id(request, "wallet_id")))

    async def set_external_id(self, request: Request) -> Response:
        """Attach, replace or take away the client's own id of a wallet."""
        caller, body = await self._signed(request)
        asked = parse(ExternalIdRequest, body, request.headers.get("content-type"))
        return json_answer(await set_external_id(self._core.ports, caller, path_id(request, "wallet_id"), asked))

    def _change(self, change: AccountChange) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            caller, body = await self._signed(request)
            asked = parse(WalletChangeRequest, body, request.headers.get("content-type"))
            wallet_id = path_id(request, "wallet_id")
            return json_answer(await change_wallet(self._core.ports, caller, wallet_id, change, asked.reason))

        answer.__name__ = f"{change}_wallet"
        answer.__doc__ = f"{change.capitalize()} a wallet, with the reason; a repeat changes nothing."
        return answer
