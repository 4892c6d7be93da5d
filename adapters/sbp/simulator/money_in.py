"""QP's acquiring over HTTP: QR codes, orders, refunds, and the control that plays the payer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.sbp.models import PaymentStatus, QrRequest, RefundRequest
from adapters.sbp.simulator.callbacks import Callbacks, Delivery
from adapters.sbp.simulator.orders import MERCHANT, Orders, kopecks
from adapters.sbp.simulator.payouts import read
from adapters.testkit.faults import CANCEL_FAULTS, INQUIRY_FAULTS, Fault
from adapters.testkit.serving import BEFORE, LOST_AFTER, Answer, Endpoint, answer_unless, respond
from schemas.money import AmountError

_STRIKING: Final = BEFORE | LOST_AFTER | {Fault.UNKNOWN_STATUS_AFTER}
_SETTLE_EVERY_S: Final = 0.1
_DELIVERY: Final = TypeAdapter(Delivery)


class MoneyIn:
    """The endpoints of orders and refunds."""

    def __init__(
        self, orders: Orders, callbacks: Callbacks, lost: Callable[[Fault, Request], Awaitable[Response]]
    ) -> None:
        self._orders, self._callbacks, self._lost = orders, callbacks, lost

    def routes(self, keyed: Callable[[Endpoint], Endpoint]) -> list[Route]:
        """Return the routes; those of the contract want the client's key."""
        return [
            Route("/api/sbp/v2/qrs", keyed(self.issue), methods=["POST"]),
            Route("/api/sbp/v2/orders/{reference}", keyed(self.status)),
            Route("/api/sbp/v2/orders/{reference}/cancel", keyed(self.cancel), methods=["POST"]),
            Route("/api/sbp/v1/refunds", keyed(self.refund), methods=["POST"]),
            Route("/api/sbp/v1/refunds/{reference}", keyed(self.refund_status)),
            Route("/_control/orders/{reference}/pay", self.pay, methods=["POST"]),
            Route("/_control/orders/{reference}/callback", self.call_back, methods=["POST"]),
        ]

    async def issue(self, request: Request) -> Response:
        asked = read(QrRequest, await request.body())
        if isinstance(asked, Answer):
            return respond(asked)
        fault = self._orders.faults.due(MERCHANT, asked.order, _STRIKING, kopecks(asked.amount))
        if fault in BEFORE:
            return await self._lost(fault, request)
        return await self._told(request, await self._orders.issue(asked), fault, "qrStatus")

    async def status(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        fault = await self._due(reference, INQUIRY_FAULTS)
        return await answer_unless(fault, request, await self._orders.status(reference), self._lost)

    async def cancel(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        fault = await self._due(reference, CANCEL_FAULTS)
        return await answer_unless(fault, request, await self._orders.cancel(reference), self._lost)

    async def refund(self, request: Request) -> Response:
        asked = read(RefundRequest, await request.body())
        if isinstance(asked, Answer):
            return respond(asked)
        fault = self._orders.faults.due(asked.transaction_id, asked.refund_id, _STRIKING, kopecks(asked.amount))
        if fault in BEFORE:
            return await self._lost(fault, request)
        return await self._told(request, await self._orders.refund(asked), fault, "refundStatus")

    async def refund_status(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        payment, amount_minor = await self._orders.refund_of_what(reference)
        fault = self._orders.faults.due(payment, reference, INQUIRY_FAULTS, amount_minor)
        return await answer_unless(fault, request, await self._orders.refund_status(reference), self._lost)

    async def pay(self, request: Request) -> Response:
        """Play the payer: pay an amount, late or again too; what succeeded is called back about as the body says."""
        try:
            asked = dict(orjson.loads(await request.body() or b"{}"))
            amount, status = str(asked.pop("amount", "")), str(asked.pop("status", PaymentStatus.SUCCESS))
            transaction_id = str(asked.pop("transaction_id", ""))
            delivery = _DELIVERY.validate_python(asked)
            answer = await self._orders.pay(request.path_params["reference"], amount, status, transaction_id)
        except (orjson.JSONDecodeError, TypeError, AmountError, ValidationError) as error:
            return respond(Answer(422, {"code": "payment_invalid", "message": str(error)}))
        if answer.status == 200:
            self._callbacks.payment(answer.body, delivery)
        return respond(answer)

    async def call_back(self, request: Request) -> Response:
        """Call back about the order's last payment once more."""
        answer = await self._orders.payment_callback(request.path_params["reference"])
        if answer.status == 200:
            self._callbacks.payment(answer.body, _DELIVERY.validate_json(await request.body() or b"{}"))
        return respond(answer)

    async def settle_forever(self) -> None:
        """Complete slow refunds while the simulator runs."""
        while True:
            await self._orders.settle()
            await asyncio.sleep(_SETTLE_EVERY_S)

    async def _due(self, order: str, among: frozenset[Fault]) -> Fault | None:
        payee, amount_minor = await self._orders.whom_and_what(order)
        return self._orders.faults.due(payee, order, among, amount_minor)

    async def _told(self, request: Request, answer: Answer, fault: Fault | None, status: str) -> Response:
        if fault in LOST_AFTER:
            return await self._lost(fault, request)
        if fault is Fault.UNKNOWN_STATUS_AFTER and status in answer.body:
            return respond(Answer(answer.status, {**answer.body, status: "SUCCESS_MAYBE"}))
        return respond(answer)
