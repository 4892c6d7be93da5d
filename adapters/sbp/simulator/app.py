"""QP over HTTP: key, latency, faults, the contract, and a control API for scripts."""

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.sbp import verdicts
from adapters.sbp.client import read_json
from adapters.sbp.models import Bank, CheckRequest, PayoutRequest, PayoutStatus
from adapters.sbp.simulator.callbacks import Callbacks, Delivery
from adapters.sbp.simulator.money_in import MoneyIn
from adapters.sbp.simulator.orders import Orders
from adapters.sbp.simulator.payouts import Payouts, as_json, read, refusal
from adapters.sbp.simulator.registers import register
from adapters.testkit.faults import INQUIRY_FAULTS, PAYMENT_FAULTS, Fault
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

DRAFT: Final = "draft:"
"""Before a reference in a script: the draft is meant, not its confirmation."""

_BOOK: Final[Mapping[str, Shown]] = {
    "executed": ("SELECT * FROM executed ORDER BY seq", dict),
    "payouts": ("SELECT * FROM payouts ORDER BY created_at_s", as_json),
}
_STRIKING: Final = PAYMENT_FAULTS - {Fault.PAYEE_NOT_FOUND}
_DRAFT_STRIKING: Final = BEFORE | LOST_AFTER | {Fault.REFUSED}
_SETTLE_EVERY_S: Final = 0.1
_BANKS: Final = TypeAdapter(list[Bank] | None)
_DELIVERY: Final = TypeAdapter(Delivery)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the HTTP side behaves."""

    secret: str
    latency_s: float = 0.0
    timeout_delay_s: float = 30.0
    callback_delay_s: float = 2.0


def build_app(payouts: Payouts, orders: Orders, callbacks: Callbacks, behaviour: Behaviour) -> Starlette:
    """Return the ASGI application; it ends slow payouts and refunds while it runs."""
    simulator = _Http(payouts, callbacks, behaviour)
    money_in = MoneyIn(orders, callbacks, simulator.lost)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        payouts.store.start()
        settling = [asyncio.create_task(each) for each in (simulator.settle_forever(), money_in.settle_forever())]
        try:
            yield
        finally:
            for task in settling:
                task.cancel()
            callbacks.stop()
            payouts.store.stop()

    keyed, prefix = simulator.keyed, "/api/payout/v1"
    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/health", health),
            Route(f"{prefix}/sbp/banks", keyed(simulator.banks)),
            Route(f"{prefix}/checks", keyed(simulator.check), methods=["POST"]),
            Route(f"{prefix}/payouts", keyed(simulator.submit), methods=["POST"]),
            Route(f"{prefix}/payouts/{{reference}}", keyed(simulator.inquire)),
            Route(f"{prefix}/payouts/{{reference}}/confirm", keyed(simulator.confirm), methods=["POST"]),
            Route(f"{prefix}/registers/{{day}}", keyed(simulator.register)),
            *money_in.routes(keyed),
            Route("/_control/book", book_endpoint(payouts.store, _BOOK)),
            Route("/_control/banks", simulator.list_banks, methods=["PUT"]),
            Route("/_control/registers", registers_endpoint(simulator.registers), methods=["GET", "POST", "DELETE"]),
            Route("/_control/faults", faults_endpoint(payouts.faults), methods=["GET", "POST", "DELETE"]),
            Route("/_control/payouts/{reference}/{verb}", simulator.force, methods=["POST"]),
        ],
    )


class _Http:
    def __init__(self, payouts: Payouts, callbacks: Callbacks, behaviour: Behaviour) -> None:
        self._payouts, self._callbacks, self._behaviour = payouts, callbacks, behaviour
        self.registers = RegisterScripts()

    def keyed(self, endpoint: Endpoint) -> Endpoint:
        """Refuse what does not carry the client's key; then wait the set latency."""
        expected = f"Bearer {self._behaviour.secret}".encode()

        async def checked(request: Request) -> Response:
            if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), expected):
                return respond(refusal("ERROR.UNAUTHORIZED", 401))
            if self._behaviour.latency_s:
                await asyncio.sleep(self._behaviour.latency_s)
            return await endpoint(request)

        return checked

    async def banks(self, _: Request) -> Response:
        return respond(self._payouts.banks())

    async def check(self, request: Request) -> Response:
        asked = read(CheckRequest, await request.body())
        return respond(asked if isinstance(asked, Answer) else await self._payouts.check(asked))

    async def submit(self, request: Request) -> Response:
        asked = read(PayoutRequest, await request.body())
        if isinstance(asked, Answer):
            return respond(asked)
        # A draft is no payment yet, and a script names it apart: only its own answer can get lost.
        among = _DRAFT_STRIKING if asked.draft else _STRIKING
        named = f"{DRAFT}{asked.id}" if asked.draft else asked.id
        amount_minor = self._payouts.amount_minor(asked.amount)
        fault = self._payouts.faults.due(asked.payout_params.phone, named, among, amount_minor)
        if fault in BEFORE:
            return await self.lost(fault, request)
        return await self._told(request, await self._payouts.submit(asked, fault), fault)

    async def confirm(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        phone, amount_minor = await self._payouts.whom_and_what(reference)
        fault = self._payouts.faults.due(phone, reference, _STRIKING, amount_minor)
        if fault in BEFORE:
            return await self.lost(fault, request)
        return await self._told(request, await self._payouts.confirm(reference, fault), fault)

    async def inquire(self, request: Request) -> Response:
        reference = request.path_params["reference"]
        phone, amount_minor = await self._payouts.whom_and_what(reference)
        fault = self._payouts.faults.due(phone, reference, INQUIRY_FAULTS, amount_minor)
        return await answer_unless(fault, request, await self._payouts.inquire(reference), self.lost)

    async def register(self, request: Request) -> Response:
        day, after, payouts = request.path_params["day"], request.query_params.get("after", ""), self._payouts
        return respond(await register(payouts.store, self.registers, payouts.fee_minor, day, after))

    async def list_banks(self, request: Request) -> Response:
        """Replace the list of banks; null takes the service of it down."""
        try:
            self._payouts.listed = _BANKS.validate_json(await request.body())
        except ValidationError as error:
            return respond(Answer(422, {"code": "banks_invalid", "message": str(error.errors()[0]["msg"])}))
        return respond(self._payouts.banks())

    async def force(self, request: Request) -> Response:
        """Settle or decline an open payout now, pay a declined one after all, or call back about one.

        What is paid is called back about as the body says, which may be empty.
        """
        reference, verb = request.path_params["reference"], request.path_params["verb"]
        body = await request.body() or b"{}"
        if verb in ("settle", "overturn"):
            settle = self._payouts.overturn if verb == "overturn" else self._payouts.settle_now
            settled = await settle(reference)
            usual = {"delay_s": self._behaviour.callback_delay_s}
            self._call_back(settled, _DELIVERY.validate_python(usual | dict(read_json(body))))
            return respond(settled)
        if verb == "decline":
            reason = str(dict(read_json(body)).get("reason", "SYSTEM_ERROR"))
            return respond(await self._payouts.decline(reference, reason))
        if verb == "callback":
            answer = await self._payouts.inquire(reference)
            if answer.status == 200:
                self._callbacks.payout(answer.body, _DELIVERY.validate_json(body))
            return respond(answer)
        return respond(Answer(404, {"code": "verb_unknown", "message": "settle, decline, overturn or callback"}))

    async def settle_forever(self) -> None:
        while True:
            for reference in await self._payouts.settle():
                self._call_back(await self._payouts.inquire(reference))
            await asyncio.sleep(_SETTLE_EVERY_S)

    async def _told(self, request: Request, answer: Answer, fault: Fault | None) -> Response:
        """Answer, unless a fault loses or distorts the answer; what was paid is called back about."""
        if fault is Fault.LATE_CALLBACK:
            self._call_back(answer)
        if fault in LOST_AFTER:
            return await self.lost(fault, request)
        if fault is Fault.UNKNOWN_STATUS_AFTER and "status" in answer.body:
            status = {**answer.body["status"], "value": "COMPLETED_MAYBE"}
            return respond(Answer(answer.status, {**answer.body, "status": status}))
        if fault is Fault.DUPLICATE_AFTER:
            return respond(refusal(verdicts.PAYOUT_EXISTS))
        return respond(answer)

    async def lost(self, fault: Fault, request: Request) -> Response:
        """Answer as if something broke on the way."""
        throttled, broken = refusal(verdicts.THROTTLED, 429), refusal("ERROR.INTERNAL", 500)
        return await lose(fault, request, delay_s=self._behaviour.timeout_delay_s, throttled=throttled, broken=broken)

    def _call_back(self, answer: Answer, delivery: Delivery | None = None) -> None:
        """Declines are never called back: only what was paid is."""
        if answer.status == 200 and answer.body.get("status", {}).get("value") == PayoutStatus.COMPLETED:
            usual = Delivery(delay_s=self._behaviour.callback_delay_s)
            self._callbacks.payout(answer.body, delivery if delivery is not None else usual)
