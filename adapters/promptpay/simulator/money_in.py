"""Money in over HTTP: the contract's codes and refunds, and a control API that pays, returns and tells."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.promptpay.models import QrRequest, RefundRequest
from adapters.promptpay.simulator.answers import parsed_body, refusal
from adapters.promptpay.simulator.bills import OWN_BILLER
from adapters.promptpay.simulator.qr import Codes
from adapters.promptpay.simulator.service import Ipps, satang
from adapters.promptpay.simulator.webhooks import Manner, Webhooks, qr_event
from adapters.testkit.faults import CANCEL_FAULTS, INQUIRY_FAULTS, Fault
from adapters.testkit.serving import Answer, answer_unless, respond

Endpoint = Callable[[Request], Awaitable[Response]]
Lose = Callable[[Fault, Request], Awaitable[Response]]
_FAULTS = frozenset({Fault.TIMEOUT_BEFORE, Fault.TIMEOUT_AFTER, Fault.ERROR_BEFORE, Fault.ERROR_AFTER})


class PayCode(BaseModel):
    """Let somebody pay a code: another amount, a transaction id of before, told in this manner."""

    model_config = ConfigDict(extra="forbid")
    reference: str
    amount_minor: Annotated[int, Field(gt=0)] | None = None
    psp_txid: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    manner: Manner = Manner.ONCE


class TakeBack(BaseModel):
    """Let the payer's bank take a payment back."""

    model_config = ConfigDict(extra="forbid")
    psp_txid: str
    manner: Manner = Manner.ONCE
    before_payment: bool = False
    """Tell the return first and the payment behind it: out of order."""


class _MoneyIn:
    def __init__(self, ipps: Ipps, codes: Codes, webhooks: Webhooks, lose: Lose) -> None:
        self._ipps, self._codes, self._webhooks, self._lose = ipps, codes, webhooks, lose

    async def make(self, request: Request) -> Response:
        asked = parsed_body(QrRequest, await request.body())
        if isinstance(asked, Answer):
            return respond(asked)
        fault = self._ipps.faults.due(OWN_BILLER, asked.client_ref, _FAULTS, satang(asked.amount))
        return await self._struck(fault, request, lambda: self._codes.make(asked))

    async def _struck(self, fault: Fault | None, request: Request, do: Callable[[], Awaitable[Answer]]) -> Response:
        """Do what is asked, as the fault that is due for it lets it be done and answered."""
        if fault in (Fault.TIMEOUT_BEFORE, Fault.ERROR_BEFORE):
            return await self._lose(fault, request)
        answer = await do()
        return respond(answer) if fault is None else await self._lose(fault, request)

    async def find(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        fault = self._due(reference, INQUIRY_FAULTS, await self._codes.whom_and_what(reference))
        return await answer_unless(fault, request, await self._codes.find(reference), self._lose)

    async def cancel(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        fault = self._due(reference, CANCEL_FAULTS, await self._codes.whom_and_what(reference))
        return await answer_unless(fault, request, await self._codes.cancel(reference), self._lose)

    async def refund(self, request: Request) -> Response:
        asked = parsed_body(RefundRequest, await request.body())
        if isinstance(asked, Answer):
            return respond(asked)
        fault = self._ipps.faults.due(asked.psp_txid, asked.client_ref, _FAULTS, satang(asked.amount))
        return await self._struck(fault, request, lambda: self._codes.refund(asked))

    async def find_refund(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        fault = self._due(reference, INQUIRY_FAULTS, await self._codes.refund_of_what(reference))
        return await answer_unless(fault, request, await self._codes.find_refund(reference), self._lose)

    def _due(self, reference: str, among: frozenset[Fault], asked: tuple[str, int | None]) -> Fault | None:
        payee, amount_minor = asked
        return self._ipps.faults.due(payee, reference, among, amount_minor)

    async def pay(self, request: Request) -> Response:
        asked = parsed_body(PayCode, await request.body())
        if isinstance(asked, Answer):
            return respond(asked)
        paid = await self._codes.pay(asked.reference, asked.amount_minor, asked.psp_txid)
        if paid is None:
            return respond(refusal(404, "qr_not_found", ""))
        self._webhooks.tell(qr_event("qr.paid", paid), asked.manner)
        return respond(Answer(200, {"psp_txid": paid.psp_txid, "bank_ref": paid.bank_ref}))

    async def take_back(self, request: Request) -> Response:
        asked = parsed_body(TakeBack, await request.body())
        if isinstance(asked, Answer):
            return respond(asked)
        back = await self._codes.take_back(asked.psp_txid)
        if back is None:
            return respond(refusal(404, "payment_not_found", ""))
        told = qr_event("qr.returned", back)
        if asked.before_payment:
            await self._webhooks.tell_in_order([told, {**qr_event("qr.paid", back), "status": "PAID"}])
        else:
            self._webhooks.tell(told, asked.manner)
        return respond(Answer(200, {"psp_txid": back.psp_txid}))

    async def list_codes(self, _: Request) -> Response:
        return respond(await self._codes.all())

    async def told(self, _: Request) -> Response:
        return respond(Answer(200, {"statuses": self._webhooks.answers}))


def money_in_routes(
    ipps: Ipps, codes: Codes, webhooks: Webhooks, signed: Callable[[Endpoint], Endpoint], lose: Lose
) -> list[Route]:
    """Return the routes."""
    routes = _MoneyIn(ipps, codes, webhooks, lose)
    return [
        Route("/v1/qr", signed(routes.make), methods=["POST"]),
        Route("/v1/qr/by-ref/{reference}", signed(routes.find)),
        Route("/v1/qr/by-ref/{reference}/cancel", signed(routes.cancel), methods=["POST"]),
        Route("/v1/refunds", signed(routes.refund), methods=["POST"]),
        Route("/v1/refunds/by-ref/{reference}", signed(routes.find_refund)),
        Route("/_control/pay", routes.pay, methods=["POST"]),
        Route("/_control/return", routes.take_back, methods=["POST"]),
        Route("/_control/codes", routes.list_codes),
        Route("/_control/webhooks", routes.told),
    ]
