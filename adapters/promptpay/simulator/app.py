"""IPPS over HTTP: signature, latency, faults, the contract, and a control API for scripts."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.promptpay import signing
from adapters.promptpay.models import LookupRequest, TransferRequest, TransferStatus
from adapters.promptpay.simulator.answers import parsed_body, refusal
from adapters.promptpay.simulator.money_in import money_in_routes
from adapters.promptpay.simulator.qr import Codes
from adapters.promptpay.simulator.registers import register
from adapters.promptpay.simulator.service import Ipps, as_json, satang
from adapters.promptpay.simulator.webhooks import Manner, Webhooks, transfer_event
from adapters.testkit.faults import CANCEL_FAULTS, INQUIRY_FAULTS, PAYMENT_FAULTS, Fault
from adapters.testkit.registers import RegisterScripts, registers_endpoint
from adapters.testkit.serving import (
    BEFORE,
    LOST_AFTER,
    Answer,
    Endpoint,
    Shown,
    answer_unless,
    book_endpoint,
    faults_endpoint,
    health,
    lose,
    respond,
)

_TRANSFER_FAULTS = PAYMENT_FAULTS - {Fault.PAYEE_NOT_FOUND}
_SETTLE_EVERY_S = 0.1
_BOOK: Final[Mapping[str, Shown]] = {
    "executed": ("SELECT * FROM executed ORDER BY seq", dict),
    "transfers": ("SELECT * FROM transfers ORDER BY created_at", as_json),
}
_FORCED = {
    "settle": (TransferStatus.PROCESSING, TransferStatus.SUCCEEDED),
    "decline": (TransferStatus.PROCESSING, TransferStatus.FAILED),
    "return": (TransferStatus.SUCCEEDED, TransferStatus.REFUNDED),
    "overturn": (TransferStatus.FAILED, TransferStatus.SUCCEEDED),
}
"""From which status a script takes a transfer to which. Overturned, it is paid though it was called failed."""


class ForceTransfer(BaseModel):
    """How a forced transfer ends, and how it is told; `changed` tells of another status than the book's."""

    model_config = ConfigDict(extra="forbid")
    reason: str = ""
    manner: Manner = Manner.ONCE
    changed: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the HTTP side behaves."""

    key_id: str
    secret: str
    latency_s: float = 0.0
    timeout_delay_s: float = 30.0
    callback_url: str = ""
    callback_delay_s: float = 2.0
    callback_retry_s: float = 12.0


def build_app(ipps: Ipps, behaviour: Behaviour) -> Starlette:
    """Return the ASGI application; it settles slow transfers while it runs."""
    simulator = _Http(ipps, behaviour)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        ipps.store.start()
        settling = asyncio.create_task(simulator.settle_forever())
        try:
            yield
        finally:
            settling.cancel()
            ipps.store.stop()

    signed = simulator.signed
    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/health", health),
            Route("/v1/lookups", signed(simulator.lookup), methods=["POST"]),
            Route("/v1/transfers", signed(simulator.transfer), methods=["POST"]),
            Route("/v1/transfers/by-ref/{reference}", signed(simulator.inquire)),
            Route("/v1/transfers/by-ref/{reference}/cancel", signed(simulator.cancel), methods=["POST"]),
            Route("/v1/settlements/{day}", signed(simulator.register)),
            *money_in_routes(ipps, Codes(ipps.store), simulator.webhooks, signed, simulator.lose),
            Route("/_control/book", book_endpoint(ipps.store, _BOOK)),
            Route("/_control/registers", registers_endpoint(simulator.registers), methods=["GET", "POST", "DELETE"]),
            Route("/_control/transfers/{reference}/{verb}", simulator.force, methods=["POST"]),
            Route("/_control/faults", faults_endpoint(ipps.faults), methods=["GET", "POST", "DELETE"]),
        ],
    )


class _Http:
    def __init__(self, ipps: Ipps, behaviour: Behaviour) -> None:
        self._ipps, self._behaviour = ipps, behaviour
        self.registers = RegisterScripts()
        self.webhooks = Webhooks(
            behaviour.callback_url,
            behaviour.key_id,
            behaviour.secret,
            delay_s=behaviour.callback_delay_s,
            retry_after_s=behaviour.callback_retry_s,
        )

    def signed(self, endpoint: Endpoint) -> Endpoint:
        """Refuse what is not signed with the client's key; then wait the set latency."""

        async def checked(request: Request) -> Response:
            headers, body = request.headers, await request.body()
            signature = headers.get(signing.SIGNATURE_HEADER, "")
            timestamp = headers.get(signing.TIMESTAMP_HEADER, "")
            key = headers.get(signing.KEY_HEADER, "")
            known = key == self._behaviour.key_id
            if not known or not signing.is_signed(self._behaviour.secret, timestamp, body, signature, int(time.time())):
                return respond(refusal(401, "signature_invalid", "sign timestamp and raw body with your secret"))
            if self._behaviour.latency_s:
                await asyncio.sleep(self._behaviour.latency_s)
            return await endpoint(request)

        return checked

    async def lookup(self, request: Request) -> Response:
        parsed = parsed_body(LookupRequest, await request.body())
        return respond(parsed if isinstance(parsed, Answer) else await self._ipps.lookup(parsed))

    async def transfer(self, request: Request) -> Response:
        parsed = parsed_body(TransferRequest, await request.body())
        if isinstance(parsed, Answer):
            return respond(parsed)
        payee = await self._ipps.payee_of_lookup(parsed.lookup_id)
        fault = self._ipps.faults.due(payee, parsed.client_ref, _TRANSFER_FAULTS, satang(parsed.amount))
        if fault in BEFORE:
            return await self.lose(fault, request)
        answer = await self._ipps.transfer(parsed, fault)
        if fault is Fault.LATE_CALLBACK:
            self.webhooks.tell(transfer_event(answer.body), Manner.LATE)
        if fault in LOST_AFTER:
            return await self.lose(fault, request)
        if fault is Fault.UNKNOWN_STATUS_AFTER:
            return respond(Answer(answer.status, {**answer.body, "status": "SUCCEEDED_MAYBE"}))
        if fault is Fault.DUPLICATE_AFTER:
            return respond(refusal(409, "duplicate_reference", ""))
        return respond(answer)

    async def inquire(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        fault = await self._due(reference, INQUIRY_FAULTS)
        return await answer_unless(fault, request, await self._ipps.inquire(reference), self.lose)

    async def cancel(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        fault = await self._due(reference, CANCEL_FAULTS)
        return await answer_unless(fault, request, await self._ipps.cancel(reference), self.lose)

    async def register(self, request: Request) -> Response:
        day, after = request.path_params["day"], request.query_params.get("after", "")
        return respond(await register(self._ipps.store, self.registers, self._ipps.fee_minor, day, after))

    async def force(self, request: Request) -> Response:
        """Take a transfer to another status, or tell of it as it is; then it is told as `manner` says."""
        reference, verb = request.path_params["reference"], request.path_params["verb"]
        asked = parsed_body(ForceTransfer, await request.body() or b"{}")
        if isinstance(asked, Answer):
            return respond(asked)
        if verb == "callback":
            answer = await self._ipps.inquire(reference)
        elif verb in _FORCED:
            answer = await self._ipps.force(reference, *_FORCED[verb], asked.reason)
        else:
            return respond(refusal(404, "verb_unknown", f"{', '.join(_FORCED)} or callback"))
        if answer.status == 200:
            self.webhooks.tell(transfer_event({**answer.body, **asked.changed}), asked.manner)
        return respond(answer)

    async def settle_forever(self) -> None:
        while True:
            await self._ipps.settle()
            await asyncio.sleep(_SETTLE_EVERY_S)

    async def _due(self, reference: str, among: frozenset[Fault]) -> Fault | None:
        payee, amount_minor = await self._ipps.whom_and_what(reference)
        return self._ipps.faults.due(payee, reference, among, amount_minor)

    async def lose(self, fault: Fault, request: Request) -> Response:
        """Answer as if something broke on the way."""
        return await lose(
            fault,
            request,
            delay_s=self._behaviour.timeout_delay_s,
            throttled=Answer(429, {"code": "throttled"}),
            broken=refusal(500, "internal_error", "something broke"),
        )
