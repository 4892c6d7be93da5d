"""Money in through IPPS: QR codes that are payable once, paying back, and the provider's webhooks."""

import time
from collections.abc import Callable
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from adapters.promptpay import signing, verdicts
from adapters.promptpay.client import IppsClient
from adapters.promptpay.models import (
    QrAnswer,
    QrPayment,
    QrRequest,
    QrStatus,
    RefundRequest,
    TransferAnswer,
    TransferStatus,
    Webhook,
)
from adapters.promptpay.settings import PromptPaySettings
from adapters.runtime import errors
from adapters.runtime.callbacks import CallbackRefused, check_hmac
from adapters.runtime.moments import storable
from adapters.runtime.port import Callback, Order, Outcome, Verified
from adapters.runtime.references import ReferenceTaken, ReferenceUnknown, status_of_existing
from schemas.collections import (
    NextAction,
    NextActionKind,
    PaymentKind,
    PaymentSource,
    PaymentStatus,
    ProviderPayment,
    Received,
)
from schemas.money import AmountError, currency_of, to_major_text, to_minor
from schemas.operations import OperationType
from schemas.results import Basis, Verdict

_THB: Final = currency_of("THB")
_BANGKOK: Final = ZoneInfo("Asia/Bangkok")

# Nobody paid, says the code: where payments are listed all the same, they are what counts.
_UNPAID: Final = frozenset({Verdict.AWAITING_PAYMENT, Verdict.EXPIRED, Verdict.CANCELLED})
# Webhooks that tell of money in; any other is about a transfer or a refund of ours, whose status is then asked for.
_BOOKED: Final = (QrStatus.PAID, QrStatus.RETURNED)
_OUT: Final[dict[str, PaymentStatus]] = {
    TransferStatus.SUCCEEDED: PaymentStatus.SUCCEEDED,
    TransferStatus.REFUNDED: PaymentStatus.RETURNED,
}
_KINDS: Final = {"qr.paid": PaymentKind.PAYMENT, "qr.returned": PaymentKind.RETURN}


class PromptPayCollections:
    """Takes money in by QR code and pays it back; the provider's own status counts, never the HTTP code."""

    def __init__(self, client: IppsClient, settings: PromptPaySettings, now_s: Callable[[], float] = time.time) -> None:
        self._client, self._settings, self._now_s = client, settings, now_s

    async def collect(self, order: Order) -> Outcome:
        """Ask for a code of the order's amount: payable once until the order expires, a deposit's again and again."""
        static = order.operation is OperationType.DEPOSIT
        if order.expires_at is None:
            raise errors.Rejected("expiry_missing", "a code is payable until a time that the permit names")
        request = QrRequest(
            client_ref=order.reference,
            amount=to_major_text(order.amount_minor, _THB),
            ref1=order.reference[:20],
            expires_at=None if static else order.expires_at,
        )
        try:
            answer, evidence = await self._client.make_qr(request)
        except ReferenceTaken:
            return await status_of_existing(self.check_collection(order))
        return self._standing(answer, order, evidence)

    async def check_collection(self, order: Order) -> Outcome:
        """Ask where the code stands."""
        try:
            answer, evidence = await self._client.find_qr(order.reference)
        except ReferenceUnknown as unknown:
            return unknown.outcome()
        return self._standing(answer, order, evidence)

    async def cancel_collection(self, order: Order) -> Outcome:
        """Bury the code; too late shows as the status that it has."""
        answer, evidence = await self._client.cancel_qr(order.reference)
        return self._standing(answer, order, evidence)

    async def refund(self, order: Order) -> Outcome:
        """Pay back to who paid the transaction that the order names."""
        if order.payee is None:
            raise errors.Rejected("transaction_missing", "a refund names the transaction that it pays back")
        request = RefundRequest(
            client_ref=order.reference,
            psp_txid=order.payee.value,
            amount=to_major_text(order.amount_minor, _THB),
        )
        try:
            answer, evidence = await self._client.refund(request)
        except ReferenceTaken:
            return await status_of_existing(self.check_refund(order))
        return _refunded(answer, order, evidence)

    async def check_refund(self, order: Order) -> Outcome:
        """Ask for the status of the refund by its own reference."""
        try:
            answer, evidence = await self._client.find_refund(order.reference)
        except ReferenceUnknown as unknown:
            return unknown.outcome()
        return _refunded(answer, order, evidence)

    async def verify(self, callback: Callback) -> Verified:
        """Check the signature over timestamp and raw body, which covers every field, and return what they say."""
        timestamp = callback.headers.get(signing.TIMESTAMP_HEADER.lower(), "")
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
            raise CallbackRefused("timestamp_missing")
        signature = callback.headers.get(signing.SIGNATURE_HEADER.lower(), "")
        check_hmac(self._settings.secret.get_secret_value(), timestamp.encode() + b"." + callback.body, signature)
        try:
            told = Webhook.model_validate_json(callback.body)
            facts = [self._fact(told)] if told.psp_txid and told.amount else []
        except (ValidationError, AmountError) as error:
            raise CallbackRefused("malformed", 422) from error
        return Verified(facts, told.event_id, int(timestamp))

    def _fact(self, told: Webhook) -> ProviderPayment:
        kind = _KINDS.get(told.type, PaymentKind.OUT)
        booked = PaymentStatus.SUCCEEDED if told.status in _BOOKED else PaymentStatus.PENDING
        return ProviderPayment(
            provider_account=self._settings.provider_account,
            environment=self._settings.environment,
            transaction_id=told.psp_txid or "",
            also_known_as=(told.bank_ref,) if told.bank_ref else (),
            kind=kind,
            status=_OUT.get(told.status, PaymentStatus.PENDING) if kind is PaymentKind.OUT else booked,
            amount_minor=to_minor(told.amount or "", _THB),
            currency=_THB.code,
            reference=told.client_ref,
            source=PaymentSource.CALLBACK,
            confirmed=True,
            occurred_at=storable(told.occurred_at, _BANGKOK),
        )

    def _standing(self, answer: QrAnswer, order: Order, evidence: str) -> Outcome:
        if answer.client_ref != order.reference:
            raise errors.ProtocolViolation("the answer is about another reference", evidence=evidence)
        verdict = verdicts.verdict_of(verdicts.QR_STATUSES, answer.status)
        if answer.payments and verdict in _UNPAID:
            verdict = Verdict.PAID  # money came, whatever the code's own status says by now
        if verdict is Verdict.RETURNED and len(answer.payments) > 1:
            # One of them came back, and the answer does not say which: a webhook names it, or a person does.
            doubt, basis = "returned_one_not_told", Basis.REFERENCE_STATUS
            return Outcome(Verdict.UNKNOWN, reason=doubt, evidence=evidence, basis=basis)
        received = _received(verdict, answer, evidence)
        action = None
        if verdict is Verdict.AWAITING_PAYMENT:
            if not answer.payload:
                raise errors.ProtocolViolation("a code without its payload", evidence=evidence)
            action = NextAction(kind=NextActionKind.QR, payload=answer.payload, expires_at=answer.expires_at)
            if answer.expires_at is not None and answer.expires_at.timestamp() <= self._now_s():
                verdict, action = Verdict.PENDING, None  # past its time and not yet told so: asked again
        return Outcome(
            verdict,
            amount_minor=_minor(received.amount, evidence) if received is not None else None,
            currency=_THB.code if received is not None else None,
            provider_tx_id=received.psp_txid if received is not None else None,
            reason=verdict.lower() if verdict in (Verdict.EXPIRED, Verdict.CANCELLED) else "",
            evidence=evidence,
            basis=Basis.REFERENCE_STATUS,
            next_action=action,
            further=[_further(each, evidence) for each in answer.payments[1:]] if received is not None else (),
        )


def _received(verdict: Verdict, answer: QrAnswer, evidence: str) -> QrPayment | None:
    if verdict not in (Verdict.PAID, Verdict.RETURNED):
        return None
    if not answer.payments:
        raise errors.ProtocolViolation("a paid code without its payment", evidence=evidence)
    return answer.payments[0]


def _further(payment: QrPayment, evidence: str) -> Received:
    amount_minor = _minor(payment.amount, evidence)
    try:
        return Received(transaction_id=payment.psp_txid, amount_minor=amount_minor, currency=_THB.code)
    except ValidationError as error:
        raise errors.ProtocolViolation("a payment without sense", evidence=evidence) from error


def _refunded(answer: TransferAnswer, order: Order, evidence: str) -> Outcome:
    if answer.client_ref != order.reference:
        raise errors.ProtocolViolation("the answer is about another reference", evidence=evidence)
    verdict = verdicts.verdict_of(verdicts.REFUND_STATUSES, answer.status)
    return Outcome(
        verdict,
        amount_minor=_minor(answer.amount, evidence) if answer.amount is not None else None,
        currency=_THB.code if answer.amount is not None else None,
        provider_tx_id=answer.psp_txid,
        reason="declined" if verdict is Verdict.DECLINED else "",
        evidence=evidence,
        basis=Basis.REFERENCE_STATUS,
    )


def _minor(text: str, evidence: str) -> int:
    try:
        return to_minor(text, _THB)
    except AmountError as error:
        raise errors.ProtocolViolation("the answer's amount is no amount", evidence=evidence) from error
