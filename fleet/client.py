"""The typed client for the service that dispatches payments: signing, idempotency keys, retries, pagination.

    async with FleetClient("http://127.0.0.1:8080", key_id="fk_…", secret="…") as fleet:
        intent = await fleet.create_intent(request, idempotency_key="order-1017")

Every money request carries an idempotency key, so it is repeated safely after a lost answer: the same key and body give
the first answer. Reads ignore fields that this version does not know.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import IO, Any, Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
import orjson
from pydantic import BaseModel, ValidationError
from yarl import URL

from fleet.retries import FleetError, Refused, Unreachable, may_help, retrying
from fleet.transport import measured, pieces_of, problem_of, retry_after_s_of
from fleet.webhooks import WebhookCalls
from schemas.api import (
    AutoConfirm,
    BatchItem,
    BatchItemResult,
    ConfirmRequest,
    IntentBatchResponse,
    IntentPage,
    IntentRequest,
    IntentView,
    ReviewRequest,
    WalletHistory,
    WalletPage,
    WalletRequest,
    WalletView,
)
from schemas.events import EventPage, EventView
from schemas.exchange import QuoteRequest, QuoteView
from schemas.fees import FeeDryRunRequest, FeeDryRunView
from schemas.operations import OperationType
from schemas.suspense import (
    AssignRequest,
    ReturnRequest,
    SuspenseDetail,
    SuspensePage,
    ToleranceList,
    ToleranceRequest,
    ToleranceView,
)
from schemas.wallets import ExternalIdRequest, WalletBalanceAt, WalletChangeRequest, WalletEventList
from wire.sending import OnceTransport
from wire.signing import IDEMPOTENCY_HEADER, signed_headers

__all__ = ["BATCH_LIMIT", "FleetClient", "FleetError", "Refused", "Unreachable"]

Model = TypeVar("Model", bound=BaseModel)

BATCH_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a stream stands: who comes back from there misses nothing."""

    id: str


class FleetClient(WebhookCalls):
    """One service key at one core. Safe for many tasks at once; close it with `aclose` or `async with`."""

    def __init__(
        self,
        base_url: str,
        key_id: str,
        secret: str,
        *,
        timeout_s: int = 10,
        attempts: int = 8,
        give_up_after_s: int = 30,
        connections: int = 50,
        clock: Callable[[], float] = time.time,
        token: str = "",
        signs_keys: bool = True,
    ) -> None:
        """A person's bearer `token` counts instead of key and secret, which are empty then.

        `clock` gives seconds since 1970; the core takes a signature that is at most 300 s off.
        `signs_keys` is false for a core that is too old to know signed idempotency keys (docs/upgrading.md).
        """
        self._key_id, self._secret, self._clock, self._token = key_id, secret, clock, token
        self._on_behalf_of: str | None = None
        self._signs_keys = signs_keys
        self._attempts, self._give_up_after_s = attempts, give_up_after_s
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.AsyncClient(
            base_url=base_url, timeout=httpx.Timeout(timeout_s), transport=OnceTransport(limits=limits)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def acting_for(self, user: str, agent: str | None = None) -> Self:
        """Return a client whose requests are made for a user, by somebody; it shares the connections of this one."""
        acting = copy(self)
        vars(acting)["_on_behalf_of"] = user if agent is None else f"{user} {agent}"
        return acting

    async def create_intent(self, intent: IntentRequest, *, idempotency_key: str) -> IntentView:
        """Ask for one payment. Raises Refused or Unreachable; repeat with the same key after Unreachable."""
        return await self._send("POST", "/v1/intents", IntentView, body=intent, idempotency_key=idempotency_key)

    async def create_intents(self, items: Sequence[BatchItem]) -> list[BatchItemResult]:
        """Ask for up to 1,000 payments in one request; each has its own key and its own result."""
        body = {"items": [item.model_dump(mode="json", exclude_none=True) for item in items]}
        answer = await self._send("POST", "/v1/intents:batch", IntentBatchResponse, body=body)
        return answer.results

    async def get_intent(self, intent_id: UUID) -> IntentView:
        """Return one intent."""
        return await self._send("GET", f"/v1/intents/{intent_id}", IntentView)

    async def confirm_intent(self, intent_id: UUID, confirm: ConfirmRequest) -> IntentView:
        """Say yes to what the lookup found. Repeating it is harmless."""
        return await self._send("POST", f"/v1/intents/{intent_id}/confirm", IntentView, body=confirm)

    async def cancel_intent(self, intent_id: UUID) -> IntentView:
        """Cancel what was provably not sent. Raises Refused `already_sent` otherwise."""
        return await self._send("POST", f"/v1/intents/{intent_id}/cancel", IntentView, body={})

    async def review_intent(self, intent_id: UUID, decision: ReviewRequest) -> IntentView:
        """Approve or reject an intent in REVIEW; the same decision again is harmless."""
        return await self._send("POST", f"/v1/intents/{intent_id}/review", IntentView, body=decision)

    async def page_of_reviews(self, *, cursor: str | None = None) -> IntentPage:
        """Return one page of what waits in REVIEW, newest first."""
        query = {} if cursor is None else {"cursor": cursor}
        return await self._send("GET", "/v1/reviews", IntentPage, query=query)

    async def page_of_suspense(
        self, *, state: str | None = "OPEN", intent_id: UUID | None = None, cursor: str | None = None
    ) -> SuspensePage:
        """Return one page of the work list of money in suspense, oldest first."""
        asked = {"state": state, "intent_id": str(intent_id) if intent_id else None, "cursor": cursor}
        query = {name: value for name, value in asked.items() if value is not None}
        return await self._send("GET", "/v1/suspense", SuspensePage, query=query)

    async def get_suspense(self, item_id: UUID) -> SuspenseDetail:
        """Return one item of the work list, who told of it and what was decided."""
        return await self._send("GET", f"/v1/suspense/{item_id}", SuspenseDetail)

    async def assign_suspense(self, item_id: UUID, request: AssignRequest) -> SuspenseDetail:
        """Give an item's money to a wallet. Raises Refused `suspense_taken` where it was decided about before."""
        return await self._send("POST", f"/v1/suspense/{item_id}/assign", SuspenseDetail, body=request)

    async def return_suspense(self, item_id: UUID, request: ReturnRequest) -> SuspenseDetail:
        """Pay an item's money back to who paid it. Raises Refused `suspense_taken`."""
        return await self._send("POST", f"/v1/suspense/{item_id}/return", SuspenseDetail, body=request)

    async def collection_tolerances(self) -> ToleranceList:
        """Return how far payments may differ from what was asked and still be credited."""
        return await self._send("GET", "/v1/collection-tolerances", ToleranceList)

    async def set_collection_tolerance(self, request: ToleranceRequest) -> ToleranceView:
        """Say how far payments of an operation may differ; zeros end it."""
        return await self._send("PUT", "/v1/collection-tolerances", ToleranceView, body=request)

    async def list_intents(self, **filters: str) -> AsyncIterator[IntentView]:
        """Yield intents, newest first, page after page. Filters: state, wallet_id, reference, created_after/before."""
        cursor: str | None = None
        while True:
            page = await self.page_of_intents(cursor=cursor, **filters)
            for intent in page.items:
                yield intent
            cursor = page.next_cursor
            if cursor is None:
                return

    async def page_of_intents(self, *, cursor: str | None = None, **filters: str) -> IntentPage:
        """Return one page of intents."""
        query = filters if cursor is None else {**filters, "cursor": cursor}
        return await self._send("GET", "/v1/intents", IntentPage, query=query)

    async def page_of_events(
        self, intent_id: UUID | None = None, *, types: Sequence[str] = (), cursor: str | None = None
    ) -> EventPage:
        """Return one page of events, oldest first, of one intent or of all; `cursor` is the id of the last one seen."""
        path, query = _events_of(intent_id, types)
        return await self._send("GET", path, EventPage, query=query | ({} if cursor is None else {"cursor": cursor}))

    async def events(
        self, intent_id: UUID | None = None, *, types: Sequence[str] = (), after: str | None = None
    ) -> AsyncGenerator[EventView]:
        """Yield events as they happen: of one intent from its first until it has ended, or of all from now on.

        `after` is the id of the last event that was seen: nothing behind it is left out or told twice, also where the
        connection breaks in between. Raises Refused, and Unreachable after `attempts` connections that brought nothing.
        """
        path, query = _events_of(intent_id, types)
        failures = 0
        while True:
            try:
                async for event in self._stream_of_events(path, query, after):
                    failures, after = 0, event.id
                    if isinstance(event, EventView):
                        yield event
                if intent_id is not None and (await self.get_intent(intent_id)).state.is_terminal:
                    # It may have ended after the stream did.
                    page = await self.page_of_events(intent_id, cursor=after)
                    for event in page.items:
                        yield event
                    return
            except (httpx.TransportError, Refused) as error:
                failures += 1
                if not may_help(error):
                    raise
                if failures >= self._attempts:
                    raise Unreachable(f"GET {path}: {type(error).__name__} {error}".strip()) from error
                await asyncio.sleep(min(3.0, 0.2 * 2**failures))

    async def _stream_of_events(
        self, path: str, query: Mapping[str, str], after: str | None
    ) -> AsyncGenerator[EventView | _Standing]:
        url, headers = self._signed("GET", path, b"", query)
        headers["Accept"] = "text/event-stream"
        if after is not None:
            headers["Last-Event-ID"] = after
        # The core gives a sign of life every 15 s: a connection that is silent for longer is dead.
        async with self._http.stream("GET", url, headers=headers, timeout=httpx.Timeout(10, read=45)) as answer:
            if not answer.is_success:
                await answer.aread()
                raise Refused(problem_of(answer), retry_after_s_of(answer))
            frame: dict[str, str] = {}
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if line:
                    frame[name] = value
                    continue
                # An id counts once its frame is whole: what broke off in the middle is told again.
                if "data" in frame:
                    yield EventView.model_validate_json(frame["data"], extra="ignore")
                elif "id" in frame:
                    yield _Standing(frame["id"])
                frame = {}

    async def create_wallet(self, wallet: WalletRequest) -> WalletView:
        """Open a wallet; with an external id, repeating it returns the same wallet. Without one it is asked once."""
        attempts = self._attempts if wallet.external_id else 1
        return await self._send("POST", "/v1/wallets", WalletView, body=wallet, attempts=attempts)

    async def get_wallet(self, wallet_id: UUID) -> WalletView:
        """Return a wallet with its balances in minor units."""
        return await self._send("GET", f"/v1/wallets/{wallet_id}", WalletView)

    async def list_wallets(self, *, owner: str | None = None, **query: str) -> WalletPage:
        """Return one page of wallets, an owner's or all; `external_id` finds one, `cursor` goes on."""
        path = "/v1/wallets" if owner is None else f"/v1/owners/{quote(owner, safe='')}/wallets"
        return await self._send("GET", path, WalletPage, query=query)

    async def wallet_balance(self, wallet_id: UUID, *, at: datetime | None = None) -> WalletBalanceAt:
        """Return a wallet's balances in minor units just before a moment, or now."""
        query = {} if at is None else {"at": at.isoformat()}
        return await self._send("GET", f"/v1/wallets/{wallet_id}/balance", WalletBalanceAt, query=query)

    async def wallet_statement(self, wallet_id: UUID, **query: str) -> AsyncIterator[bytes]:
        """Yield the parts of a statement as they come: `from` and `to` are days of `tz`, `format` is json or csv.

        A connection that breaks in the middle raises Unreachable: what came is not whole.
        """
        async for part in self.stream(f"/v1/wallets/{wallet_id}/statement", query):
            yield part

    async def stream(
        self, path: str, query: Mapping[str, str] | None = None, *, method: str = "GET"
    ) -> AsyncIterator[bytes]:
        """Yield the parts of a long answer as they come. Raises Refused, or Unreachable: what came is not whole."""
        url, headers = self._signed(method, path, b"", query or {})
        try:
            async with self._http.stream(method, url, headers=headers) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise Refused(problem_of(answer), retry_after_s_of(answer))
                async for part in answer.aiter_bytes():
                    yield part
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__} {error}".strip()) from error

    async def upload(self, path: str, model: type[Model], file: IO[bytes], query: Mapping[str, str]) -> Model:
        """Send a file of any length as the body, in pieces, once; it is read twice, the first time for its SHA-256.

        Raises Refused or Unreachable.
        """
        digest, length = await asyncio.to_thread(measured, file)
        url, headers = self._signed("POST", path, b"", query, digest=digest)
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        try:
            return model.model_validate_json(await self._answer("POST", url, pieces_of(file), headers))
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unreachable(f"POST {path}: {type(error).__name__} {error}".strip()) from error

    async def wallet_history(self, wallet_id: UUID, *, cursor: str | None = None, **filters: str) -> WalletHistory:
        """Return one page of a wallet's entries, newest first.

        Filters: from and to (moments), operation, sign, state, counterparty_wallet_id, comment.
        """
        query = filters if cursor is None else {**filters, "cursor": cursor}
        return await self._send("GET", f"/v1/wallets/{wallet_id}/history", WalletHistory, query=query)

    async def change_wallet(self, wallet_id: UUID, change: str, *, reason: str) -> WalletView:
        """Freeze, unfreeze or close a wallet; repeating it is harmless."""
        body = WalletChangeRequest(reason=reason)
        return await self._send("POST", f"/v1/wallets/{wallet_id}/{change}", WalletView, body=body)

    async def set_external_id(self, wallet_id: UUID, request: ExternalIdRequest) -> WalletView:
        """Attach, replace or take away the client's own id of a wallet."""
        return await self._send("POST", f"/v1/wallets/{wallet_id}/external-id", WalletView, body=request)

    async def wallet_events(self, wallet_id: UUID) -> WalletEventList:
        """Return what changed a wallet beside its money, oldest first."""
        return await self._send("GET", f"/v1/wallets/{wallet_id}/events", WalletEventList)

    async def dry_run_fees(self, payment: FeeDryRunRequest) -> FeeDryRunView:
        """Return the fees of a payment that is not made, and why each rule applied or not."""
        return await self._send("POST", "/v1/fees:dry-run", FeeDryRunView, body=payment)

    async def create_quote(self, quote: QuoteRequest) -> QuoteView:
        """Ask what an exchange costs. Repeated after a lost answer it makes another quote, which binds nobody."""
        return await self._send("POST", "/v1/quotes", QuoteView, body=quote)

    async def get_quote(self, quote_id: UUID) -> QuoteView:
        """Return a quote, and by which intent it was used."""
        return await self._send("GET", f"/v1/quotes/{quote_id}", QuoteView)

    async def exchange(self, quote: QuoteView, *, idempotency_key: str, max_fee_minor: int | None = None) -> IntentView:
        """Use a quote. Raises Refused or Unreachable; repeat with the same key after Unreachable."""
        intent = IntentRequest(
            operation=OperationType.EXCHANGE,
            wallet_id=quote.wallet_id,
            counterparty_wallet_id=quote.counterparty_wallet_id,
            amount_minor=quote.from_minor,
            currency=quote.from_currency,
            quote_id=quote.id,
            auto_confirm=None if max_fee_minor is None else AutoConfirm(max_fee_minor=max_fee_minor),
        )
        return await self.create_intent(intent, idempotency_key=idempotency_key)

    async def call(
        self,
        method: str,
        path: str,
        model: type[Model],
        *,
        body: BaseModel | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Model:
        """Ask any route that is safe to repeat. Raises Refused or Unreachable."""
        return await self._send(method, path, model, body=body, query=query)

    async def _send(
        self,
        method: str,
        path: str,
        model: type[Model],
        *,
        body: BaseModel | Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        attempts: int | None = None,
    ) -> Model:
        raw = _encode(body)
        try:
            async for attempt in retrying(attempts or self._attempts, self._give_up_after_s):
                with attempt:
                    content = await self._once(method, path, raw, query or {}, idempotency_key)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__} {error}".strip()) from error
        try:
            return model.model_validate_json(content, extra="ignore")
        except ValidationError as error:
            text = f"{method} {path}: the answer is not the core's: is this its address, and its version ours?"
            raise Unreachable(text) from error

    async def _once(
        self, method: str, path: str, raw: bytes, query: Mapping[str, str], idempotency_key: str | None
    ) -> bytes:
        """One signed request: each repeat has a nonce of its own, since the core refuses a replayed one."""
        url, headers = self._signed(method, path, raw, query, idempotency_key=idempotency_key)
        if raw:
            headers["Content-Type"] = "application/json"
        if idempotency_key is not None:
            headers[IDEMPOTENCY_HEADER] = idempotency_key
        return await self._answer(method, url, raw, headers)

    async def _answer(
        self, method: str, url: str, content: bytes | AsyncIterator[bytes], headers: Mapping[str, str]
    ) -> bytes:
        answer = await self._http.request(method, url, content=content, headers=headers)
        if answer.is_success:
            return answer.content
        raise Refused(problem_of(answer), retry_after_s_of(answer))

    def _signed(
        self,
        method: str,
        path: str,
        raw: bytes,
        query: Mapping[str, str],
        *,
        digest: str | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[str, dict[str, str]]:
        # Written as the HTTP library sends it, which undoes needless escapes: what is signed is what is sent.
        query_text = URL.build(query=sorted(query.items())).raw_query_string
        url = f"{path}?{query_text}" if query_text else path
        if self._token:
            return url, {"Authorization": f"Bearer {self._token}"}
        headers = signed_headers(
            method=method,
            path=path,
            query=query_text,
            body=raw,
            key_id=self._key_id,
            secret=self._secret,
            timestamp=int(self._clock()),
            nonce=secrets.token_urlsafe(16),
            on_behalf_of=self._on_behalf_of,
            idempotency_key=idempotency_key if self._signs_keys else None,
            digest=digest,
        )
        return url, headers


def _events_of(intent_id: UUID | None, types: Sequence[str]) -> tuple[str, dict[str, str]]:
    if intent_id is not None:
        return f"/v1/intents/{intent_id}/events", {}
    return "/v1/events", {"type": ",".join(types)} if types else {}


def _encode(body: BaseModel | Mapping[str, Any] | None) -> bytes:
    if body is None:
        return b""
    return orjson.dumps(body.model_dump(mode="json", exclude_none=True) if isinstance(body, BaseModel) else body)
