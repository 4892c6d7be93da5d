"""The public API: intents and wallets. Every route is signed; hot routes read and write JSON themselves."""

import re
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import FastAPI
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from core.api.alerts import AlertRoutes
from core.api.answers import fault_refusal, install_problems, json_answer
from core.api.audit import AuditRoutes
from core.api.bearers import bearer_of, person_of
from core.api.dlq import DeadLetterRoutes
from core.api.events import EventRoutes
from core.api.fees import FeeRoutes
from core.api.health import install_health
from core.api.hot_paths import HotPaths
from core.api.limits import LimitRoutes
from core.api.liquidity import LiquidityRoutes
from core.api.mandates import MandateRoutes
from core.api.metrics import TRACEPARENT
from core.api.openapi import Described, install_document, tells
from core.api.quotes import QuoteRoutes
from core.api.rail_desk import RailDeskRoutes
from core.api.rates import RateRoutes
from core.api.recon import ReconRoutes
from core.api.recon_days import ReconDayRoutes
from core.api.redrives import RedriveRoutes
from core.api.requests import (
    BATCH_BODY_MAX_BYTES,
    Page,
    SignedAndUnspent,
    has_nul,
    parse,
    path_id,
    query_of,
    read_body,
    refusal_of,
    require_no_nul,
)
from core.api.reviews import ReviewRoutes
from core.api.signed_routes import Route, SignedRoutes
from core.api.statements import StatementRoutes
from core.api.suspense import SuspenseRoutes
from core.api.tenants import TenantRoutes
from core.api.wallets import WalletRoutes
from core.api.webhooks import WebhookRoutes
from core.bootstrap import PASSING_FAULTS, Core
from core.services.access.keys import Caller, HeldNonce
from core.services.on_call.stream_repair import RepairedStreams
from core.services.payments.accept import Accepted
from core.services.payments.cancel import cancel
from core.services.payments.confirm import confirm
from core.services.payments.read_intents import IntentFilter, intent_shown
from core.services.problems import Refusal
from schemas.api import (
    BatchItem,
    ConfirmRequest,
    IntentBatchRequest,
    IntentBatchResponse,
    IntentPage,
    IntentRequest,
    IntentView,
)
from schemas.base import AnyMoment
from schemas.events import IntentState
from wire.signing import IDEMPOTENCY_HEADER

_KEY_PATTERN: Final = re.compile(r"[\x21-\x7e]{1,128}")
_TRACEPARENT: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_BATCH_ITEM: Final = TypeAdapter(BatchItem)
_REPLAYED: Final = {"Idempotent-Replayed": "true"}


class _IntentQuery(Page):
    state: IntentState | None = None
    wallet_id: UUID | None = None
    reference: Annotated[str, Field(max_length=64)] | None = None
    original_intent_id: UUID | None = None
    created_after: AnyMoment | None = None
    created_before: AnyMoment | None = None


def public_app(core: Core, streams: RepairedStreams | None = None) -> ASGIApp:
    """Return the application of the public listener; `streams` lets people on call see and repair them."""
    app = FastAPI(title="psp-fleet", version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
    install_problems(app, PASSING_FAULTS)
    install_health(app, core)
    routes = _Routes(core)
    table: list[Route] = [
        ("POST", "/v1/intents", routes.create_intent, IntentView, 201, IntentRequest),
        ("POST", "/v1/intents:batch", routes.create_intents, IntentBatchResponse, 200, IntentBatchRequest),
        ("GET", "/v1/intents", routes.list_intents, IntentPage, 200, None),
        ("GET", "/v1/intents/{intent_id}", routes.get_intent, IntentView, 200, None),
        ("POST", "/v1/intents/{intent_id}/confirm", routes.confirm_intent, IntentView, 200, ConfirmRequest),
        ("POST", "/v1/intents/{intent_id}/cancel", routes.cancel_intent, IntentView, 200, None),
        *EventRoutes(core).table(),
        *WebhookRoutes(core).table(),
        *WalletRoutes(core).table(),
        *StatementRoutes(core).table(),
        *SuspenseRoutes(core).table(),
        *FeeRoutes(core).table(),
        *LimitRoutes(core).table(),
        *RateRoutes(core).table(),
        *MandateRoutes(core).table(),
        *QuoteRoutes(core).table(),
        *LiquidityRoutes(core).table(),
        *ReviewRoutes(core).table(),
        *TenantRoutes(core).table(),
        *DeadLetterRoutes(core).table(),
        *RedriveRoutes(core).table(),
        *AlertRoutes(core).table(),
        *RailDeskRoutes(core, streams).table(),
        *ReconRoutes(core).table(),
        *ReconDayRoutes(core).table(),
        *AuditRoutes(core).table(),
    ]
    for method, path, handler, _, _, _ in table:
        app.add_api_route(path, handler, methods=[method], include_in_schema=False)
    install_document(app, [Described(*route) for route in table])
    hot = {("POST", "/v1/intents"): routes.create_intent, ("POST", "/v1/intents:batch"): routes.create_intents}
    return HotPaths(app, hot, PASSING_FAULTS)


class _Routes(SignedRoutes):
    @tells(idempotency_key=True)
    async def create_intent(self, request: Request) -> Response:
        """Ask for one payment under an Idempotency-Key."""
        body = await read_body(request)
        if (token := bearer_of(request)) is not None:
            caller = await person_of(self._core, request, token)
            accepted = await self._accept(request, caller, body, None)
        else:
            async with SignedAndUnspent(request, body, self._core.authenticator, "service") as (caller, nonce):
                accepted = await self._accept(request, caller, body, nonce)
        return json_answer(intent_shown(accepted.intent, caller), 201, _REPLAYED if accepted.replayed else None)

    async def _accept(self, request: Request, caller: Caller, body: bytes, nonce: HeldNonce | None) -> Accepted:
        key = request.headers.get(IDEMPOTENCY_HEADER, "")
        if _KEY_PATTERN.fullmatch(key) is None:
            text = "send Idempotency-Key: 1 to 128 visible ASCII characters, one key for each payment"
            raise Refusal("idempotency_key_missing", text, field=IDEMPOTENCY_HEADER)
        asked = parse(IntentRequest, body, request.headers.get("content-type"))
        return await self._core.accept.accept(caller, key, asked, _traceparent(request), nonce)

    async def create_intents(self, request: Request) -> Response:
        """Ask for up to 1,000 payments; each has its own key and its own result."""
        caller, body = await self._signed_alone(request, BATCH_BODY_MAX_BYTES)
        # What cannot be stored refuses its own item alone, so the batch is not looked through for it as a whole.
        batch = parse(IntentBatchRequest, body, request.headers.get("content-type"), sealed=True)
        nul = has_nul(body)
        answers: dict[int, Accepted | Exception] = {}
        valid: dict[int, tuple[str, IntentRequest]] = {}
        for place, item in enumerate(batch.items):
            try:
                checked = _BATCH_ITEM.validate_python(item)
                if nul:
                    require_no_nul(item)
            except ValidationError as error:
                answers[place] = refusal_of(error)
            except Refusal as refusal:
                answers[place] = refusal
            else:
                valid[place] = checked.idempotency_key, checked.intent
        answers |= zip(
            valid,
            await self._core.accept.accept_all(caller, list(valid.values()), _traceparent(request)),
            strict=True,
        )
        return json_answer({"results": [_result(place, answers[place], caller) for place in range(len(batch.items))]})

    @tells(query=_IntentQuery)
    async def list_intents(self, request: Request) -> Response:
        """List intents, newest first."""
        caller, _ = await self._signed(request)
        query = query_of(_IntentQuery, request)
        wanted = IntentFilter(
            state=query.state,
            wallet_id=query.wallet_id,
            reference=query.reference,
            original_intent_id=query.original_intent_id,
            created_after=query.created_after,
            created_before=query.created_before,
            accounts=None if caller.accounts is None else list(caller.accounts),
        )
        rows, following = await self._core.read.page(caller, wanted, query.cursor, query.limit)
        return json_answer({"items": [intent_shown(row, caller) for row in rows], "next_cursor": following})

    async def get_intent(self, request: Request) -> Response:
        """Show one intent."""
        caller, _ = await self._signed(request)
        row, returned = await self._core.read.show(caller, path_id(request, "intent_id"))
        return json_answer(intent_shown(row, caller, returned))

    async def confirm_intent(self, request: Request) -> Response:
        """Confirm what the lookup found."""
        caller, body = await self._signed(request)
        asked = parse(ConfirmRequest, body, request.headers.get("content-type"))
        row = await confirm(self._core.ports, caller, path_id(request, "intent_id"), asked)
        return json_answer(intent_shown(row, caller))

    async def cancel_intent(self, request: Request) -> Response:
        """Cancel what was provably not sent."""
        caller, _ = await self._signed(request)
        row = await cancel(self._core.ports, caller, path_id(request, "intent_id"))
        return json_answer(intent_shown(row, caller))


def _result(index: int, answer: Accepted | Exception, caller: Caller) -> dict[str, Any]:
    """Return one result in the shape of BatchItemResult."""
    result: dict[str, Any] = {"index": index, "status": 201, "intent": None, "problem": None, "replayed": False}
    if isinstance(answer, Accepted):
        return result | {"intent": intent_shown(answer.intent, caller), "replayed": answer.replayed}
    if isinstance(answer, PASSING_FAULTS):
        answer = fault_refusal(answer)
    if not isinstance(answer, Refusal):
        raise answer
    return result | {"status": answer.status, "problem": answer.problem().model_dump()}


def _traceparent(request: Request) -> str | None:
    given = request.scope.get(TRACEPARENT) or request.headers.get("traceparent", "")
    return given if _TRACEPARENT.fullmatch(given) else None
