"""Redrives over HTTP: ask, watch, approve, reject, cancel; settle one payment by hand."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.dlq import id_in
from core.api.openapi import tells
from core.api.requests import BATCH_BODY_MAX_BYTES, Page, parse, path_id, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.services.access.keys import DEAD_LETTERS_SCOPE, REDRIVE_APPROVAL_SCOPE, Caller
from core.services.cursors import decode_cursor, encode_cursor, number_of
from core.services.on_call.redrives import (
    ask_redrive,
    background_context,
    cancel_redrive,
    reach,
    reject_redrive,
    show_redrive,
    view_of,
)
from core.services.settling.settle_by_hand import approve, ask_settlement
from schemas.on_call import (
    HandSettlementRequest,
    RedriveDecision,
    RedriveItemPage,
    RedrivePage,
    RedriveRequest,
    RedriveState,
    RedriveView,
)


class _RedriveQuery(Page):
    state: RedriveState | None = None


class RedriveRoutes(SignedRoutes):
    """The routes of redrives."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        one = "/v1/redrives/{redrive_id}"
        return (
            ("POST", "/v1/redrives", self.ask, RedriveView, 200, RedriveRequest),
            ("GET", "/v1/redrives", self.list_redrives, RedrivePage, 200, None),
            ("GET", one, self.show, RedriveView, 200, None),
            ("GET", f"{one}/letters", self.list_letters, RedriveItemPage, 200, None),
            ("POST", f"{one}/approve", self.approve, RedriveView, 200, RedriveDecision),
            ("POST", f"{one}/reject", self.reject, RedriveView, 200, RedriveDecision),
            ("POST", f"{one}/cancel", self.cancel, RedriveView, 200, RedriveDecision),
            ("POST", "/v1/hand-settlements", self.settle, RedriveView, 200, HandSettlementRequest),
        )

    async def ask(self, request: Request) -> Response:
        """Count what a redrive or a discard would do, or do it."""
        caller, body = await self._operator(request, DEAD_LETTERS_SCOPE, BATCH_BODY_MAX_BYTES)
        asked = parse(RedriveRequest, body, request.headers.get("content-type"))
        return _shown(await ask_redrive(self._core.worker_ports, caller, asked))

    async def settle(self, request: Request) -> Response:
        """Ask for one payment to be settled as a person has seen it at the provider."""
        caller, body = await self._operator(request, DEAD_LETTERS_SCOPE, BATCH_BODY_MAX_BYTES)
        asked = parse(HandSettlementRequest, body, request.headers.get("content-type"))
        return _shown(await ask_settlement(self._core.worker_ports, caller, asked))

    @tells(query=_RedriveQuery)
    async def list_redrives(self, request: Request) -> Response:
        """List redrives, newest first."""
        caller, _ = await self._operator(request, DEAD_LETTERS_SCOPE)
        query, ports = query_of(_RedriveQuery, request), self._core.worker_ports
        before = None if query.cursor is None else id_in(query.cursor)
        async with ports.unit_of_work(background_context(caller)) as uow:
            rows = await ports.redrives.page(uow, reach(caller), query.state, before, query.limit + 1)
            views = [view_of(row, await ports.redrives.tally(uow, row.id)) for row in rows[: query.limit]]
        following = encode_cursor(str(rows[query.limit - 1].id)) if len(rows) > query.limit else None
        return json_answer({"items": [view.model_dump() for view in views], "next_cursor": following})

    async def show(self, request: Request) -> Response:
        """Show a redrive and its progress."""
        caller, _ = await self._operator(request, DEAD_LETTERS_SCOPE)
        return await self._current(caller, request)

    @tells(query=Page)
    async def list_letters(self, request: Request) -> Response:
        """List what became of each letter, in their order."""
        caller, _ = await self._operator(request, DEAD_LETTERS_SCOPE)
        query, ports = query_of(Page, request), self._core.worker_ports
        redrive_id, after = path_id(request, "redrive_id"), 0
        if query.cursor is not None:
            after = number_of(decode_cursor(query.cursor, 1)[0])
        async with ports.unit_of_work(background_context(caller)) as uow:
            await show_redrive(uow, ports, caller, redrive_id)
            found = await ports.redrives.items(uow, redrive_id, after, query.limit + 1)
        following = encode_cursor(str(found[query.limit - 1]["place"])) if len(found) > query.limit else None
        return json_answer({"items": found[: query.limit], "next_cursor": following})

    async def approve(self, request: Request) -> Response:
        """Let it run; not with the key that asked for it."""
        caller, decision = await self._decision(request, REDRIVE_APPROVAL_SCOPE)
        redrive_id = path_id(request, "redrive_id")
        return _shown(await approve(self._core.worker_ports, caller, redrive_id, decision.reason))

    async def reject(self, request: Request) -> Response:
        """End it before it began; not with the key that asked for it."""
        caller, decision = await self._decision(request, REDRIVE_APPROVAL_SCOPE)
        return await self._changed(request, caller, reject_redrive, decision)

    async def cancel(self, request: Request) -> Response:
        """Act on no further letter."""
        caller, decision = await self._decision(request, DEAD_LETTERS_SCOPE)
        return await self._changed(request, caller, cancel_redrive, decision)

    async def _decision(self, request: Request, scope: str) -> tuple[Caller, RedriveDecision]:
        caller, body = await self._operator(request, scope)
        return caller, parse(RedriveDecision, body or b"{}", request.headers.get("content-type"))

    async def _changed(self, request: Request, caller: Caller, change: Any, decision: RedriveDecision) -> Response:
        ports = self._core.worker_ports
        async with ports.unit_of_work(background_context(caller)) as uow:
            await change(uow, ports, caller, path_id(request, "redrive_id"), decision.reason)
        return await self._current(caller, request)

    async def _current(self, caller: Caller, request: Request) -> Response:
        ports = self._core.worker_ports
        async with ports.unit_of_work(background_context(caller)) as uow:
            return _shown(await show_redrive(uow, ports, caller, path_id(request, "redrive_id")))


def _shown(view: RedriveView) -> Response:
    return json_answer(view)
