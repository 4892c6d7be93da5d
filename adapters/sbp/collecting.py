"""Money in over SBP: QR codes, their payments, refunds, and callbacks whose status is read again before it counts."""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from adapters.runtime import errors
from adapters.runtime.callbacks import CallbackRefused
from adapters.runtime.moments import storable
from adapters.runtime.port import Callback, Order, Outcome, Verified
from adapters.runtime.references import ReferenceTaken, ReferenceUnknown, status_of_existing
from adapters.sbp import signing, verdicts
from adapters.sbp.client import QpClient, read_json
from adapters.sbp.kopecks import RUB, kopecks
from adapters.sbp.models import OrderAnswer, PaymentAnswer, PayoutStatus, QrRequest, QrType, RefundAnswer, RefundRequest
from adapters.sbp.settings import SbpSettings
from schemas.codes.nspk_link import LinkError, verify_link
from schemas.collections import (
    NextAction,
    NextActionKind,
    PaymentKind,
    PaymentSource,
    PaymentStatus,
    ProviderPayment,
    Received,
)
from schemas.money import to_major_text, to_minor
from schemas.operations import OperationType
from schemas.results import Basis, Verdict

log = logging.getLogger(__name__)

_MOSCOW: Final = ZoneInfo("Europe/Moscow")
_LINK_TYPES: Final[Mapping[str, str]] = {QrType.STATIC: "01", QrType.DYNAMIC: "02"}
_ORDER: Final = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
_FACTS: Final = {
    Verdict.PAID: PaymentStatus.SUCCEEDED,
    Verdict.PENDING: PaymentStatus.PENDING,
    Verdict.DECLINED: PaymentStatus.FAILED,
}

# Of a payout it decides nothing: a success only makes the core ask about one that ended unpaid.
_OUT: Final[Mapping[str, PaymentStatus]] = {
    PayoutStatus.COMPLETED: PaymentStatus.SUCCEEDED,
    PayoutStatus.DECLINED: PaymentStatus.FAILED,
}


class CollectsByQr:
    """The part of the rail that takes money in. A top-up has a dynamic code, a deposit a static one."""

    def __init__(self, client: QpClient, settings: SbpSettings) -> None:
        self._client, self._settings = client, settings

    async def collect(self, order: Order) -> Outcome:
        """Issue the code of an order, once, and show its link; an order that has one is asked about instead."""
        static = order.operation is OperationType.DEPOSIT
        expires_at = order.expires_at
        request = QrRequest(
            order=order.reference,
            account=self._settings.account,
            amount=to_major_text(order.amount_minor, RUB),
            qr_type=QrType.STATIC if static else QrType.DYNAMIC,
            qr_expiration_date=None if static or expires_at is None else expires_at.astimezone(_MOSCOW).isoformat(),
            additional_info=order.message,
        )
        try:
            answer, evidence = await self._client.issue(request)
        except ReferenceTaken:
            answer, evidence = await status_of_existing(self._client.order(order.reference))
        return collection_outcome(answer, order, evidence)

    async def check_collection(self, order: Order) -> Outcome:
        """Say what was paid by the order's code, or that nothing was."""
        try:
            answer, evidence = await self._client.order(order.reference)
        except ReferenceUnknown as unknown:
            return unknown.outcome()
        return collection_outcome(answer, order, evidence)

    async def cancel_collection(self, order: Order) -> Outcome:
        """Bury the order; what was paid by its code stands in the way."""
        answer, evidence = await self._client.cancel_order(order.reference)
        return collection_outcome(answer, order, evidence)

    async def refund(self, order: Order) -> Outcome:
        """Pay a part of a payment back; the provider sees to it that the parts are no more than the whole."""
        if order.payee is None:
            raise errors.Rejected("payment_not_found", "a refund names the transaction that it pays back")
        request = RefundRequest(
            refund_id=order.reference,
            transaction_id=order.payee.value,
            amount=to_major_text(order.amount_minor, RUB),
        )
        try:
            answer, evidence = await self._client.refund(request)
        except ReferenceTaken:
            answer, evidence = await status_of_existing(self._client.refund_status(order.reference))
        return _refund_outcome(answer, order, evidence)

    async def check_refund(self, order: Order) -> Outcome:
        """Ask for the status of the refund."""
        try:
            answer, evidence = await self._client.refund_status(order.reference)
        except ReferenceUnknown as unknown:
            return unknown.outcome()
        return _refund_outcome(answer, order, evidence)

    async def verify(self, callback: Callback) -> Verified:
        """Check the signature, which leaves most fields out, and read the order again: that is what counts.

        A callback about a payout only makes the core ask. Raises CallbackRefused, 503 where the order cannot be read
        now: the provider repeats it.
        """
        told, text = _signed(callback, self._settings.secret.get_secret_value())
        # What is signed names the event, with the transaction: two payments of one amount at one second are two.
        # Whoever changes that, which is not signed, only makes the order be read once more.
        event_id = hashlib.sha256(f"{text}|{told.get('transactionId', '')}".encode()).hexdigest()
        if "payout" in told:
            return Verified([self._out(told["payout"])], event_id)
        reference = str(told["order"])
        if not _ORDER.fullmatch(reference):
            # A payment of somebody else's making at our account: the register tells of it.
            return Verified([], event_id)
        try:
            answer, evidence = await self._client.order(reference)
            if answer.order != reference:
                raise CallbackRefused("status_not_told", 503)
            listed = [each for each in answer.payments if each.payment_status in verdicts.PAYMENT_STATUSES]
            if not _shows(listed, told):
                # Told of before the order shows it: acknowledged now, nobody would tell of it again.
                raise CallbackRefused("status_lags", 503)
            facts = self._readable(listed, reference, evidence)
            return Verified(facts, _as_read(event_id, facts))
        except ReferenceUnknown as error:
            if verdicts.PAYMENT_STATUSES.get(str(told["paymentStatus"])) is Verdict.PAID:
                raise CallbackRefused("status_lags", 503) from error
            return Verified([], event_id)
        except errors.AdapterError as error:
            raise CallbackRefused("status_not_told", 503) from error

    def _readable(self, listed: Sequence[PaymentAnswer], reference: str, evidence: str) -> list[ProviderPayment]:
        """Return the order's payments; one without sense is left to whoever asks for the order, and hides no other."""
        facts = []
        for each in listed:
            try:
                facts.append(self._fact(each, reference, evidence))
            except (ValueError, errors.ProtocolViolation):
                log.error("a payment of an order has no sense, and is not told by its callback")  # noqa: TRY400
        if listed and not facts:
            raise CallbackRefused("status_not_told", 503)
        return facts

    def _fact(self, payment: PaymentAnswer, reference: str, evidence: str) -> ProviderPayment:
        return ProviderPayment(
            provider_account=self._settings.provider_account,
            environment=self._settings.environment,
            transaction_id=payment.transaction_id,
            status=_FACTS[verdicts.PAYMENT_STATUSES[payment.payment_status]],
            amount_minor=kopecks(payment.amount, evidence),
            currency=payment.currency,
            reference=reference,
            source=PaymentSource.CALLBACK,
            confirmed=True,
            occurred_at=storable(payment.transaction_date, _MOSCOW).astimezone(UTC),
        )

    def _out(self, payout: dict[str, Any]) -> ProviderPayment:
        try:
            return ProviderPayment.model_validate(
                {
                    "provider_account": self._settings.provider_account,
                    "environment": self._settings.environment,
                    "transaction_id": payout["transactionId"],
                    "kind": PaymentKind.OUT,
                    "status": _OUT.get(str(payout["status"]["value"]), PaymentStatus.PENDING),
                    "amount_minor": to_minor(str(payout["amount"]), RUB),
                    "currency": RUB.code,
                    "reference": payout["id"],
                    "source": PaymentSource.CALLBACK,
                    "occurred_at": _told_at(payout["status"]["date"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CallbackRefused("malformed", 400) from error


def _told_at(told: object) -> datetime:
    """Raises ValueError and TypeError for what is no moment."""
    if not isinstance(told, str):
        raise TypeError("a moment is text")
    return storable(datetime.fromisoformat(told), _MOSCOW)


def _shows(listed: Sequence[PaymentAnswer], told: Mapping[str, Any]) -> bool:
    """Whether an order shows the success that a callback tells of; any other status is only a reason to look."""
    if verdicts.PAYMENT_STATUSES.get(str(told["paymentStatus"])) is not Verdict.PAID:
        return True
    named = told.get("transactionId")
    paid = [each for each in listed if verdicts.PAYMENT_STATUSES[each.payment_status] is Verdict.PAID]
    return any(named in (None, each.transaction_id) for each in paid)


def _as_read(event_id: str, facts: Sequence[ProviderPayment]) -> str:
    """Return the event's name with what the order showed: told again when that shows more, it is another event."""
    shown = "|".join(sorted(f"{fact.transaction_id}={fact.status}" for fact in facts))
    return hashlib.sha256(f"{event_id}|{shown}".encode()).hexdigest()


def collection_outcome(answer: OrderAnswer, order: Order, evidence: str) -> Outcome:
    """Return where a collection stands: the first payment that succeeded counts, whatever the code's own status is."""
    if answer.order != order.reference:
        raise errors.ProtocolViolation("the answer is about another order", evidence=evidence)
    found = [(verdicts.PAYMENT_STATUSES.get(each.payment_status, Verdict.UNKNOWN), each) for each in answer.payments]
    paid = sorted((each for verdict, each in found if verdict is Verdict.PAID), key=lambda each: each.transaction_date)
    if paid:
        first, others = paid[0], paid[1:]
        return Outcome(
            Verdict.PAID,
            amount_minor=kopecks(first.amount, evidence),
            currency=first.currency,
            provider_tx_id=first.transaction_id,
            evidence=evidence,
            basis=Basis.REFERENCE_STATUS,
            further=[_further(each, evidence) for each in others],
        )
    verdict = verdicts.QR_STATUSES.get(answer.qr_status, Verdict.UNKNOWN)
    open_verdicts = {each for each, _ in found} - {Verdict.DECLINED}
    if Verdict.UNKNOWN in open_verdicts:
        verdict = Verdict.UNKNOWN
    elif open_verdicts and verdict is not Verdict.UNKNOWN and verdict is not Verdict.AWAITING_PAYMENT:
        verdict = Verdict.PENDING  # a payment that began in time may still succeed
    shown = _next_action(answer, order, evidence) if verdict is Verdict.AWAITING_PAYMENT else None
    return Outcome(verdict, evidence=evidence, basis=Basis.REFERENCE_STATUS, next_action=shown)


def _further(payment: PaymentAnswer, evidence: str) -> Received:
    try:
        return Received(
            transaction_id=payment.transaction_id,
            amount_minor=kopecks(payment.amount, evidence),
            currency=payment.currency,
        )
    except ValueError as error:
        raise errors.ProtocolViolation("a payment without sense", evidence=evidence) from error


def _next_action(answer: OrderAnswer, order: Order, evidence: str) -> NextAction:
    """Return the link to show, verified: a payer is never sent to what the acquirer did not issue for this order."""
    try:
        link = verify_link(answer.payload or "")
    except LinkError as error:
        raise errors.ProtocolViolation(f"the link is not genuine: {error.code}", evidence=evidence) from error
    kind = _LINK_TYPES.get(answer.qr_type or "")
    if kind is None or link.qrc_id != answer.qr_id or link.type not in (None, kind):
        raise errors.ProtocolViolation("the link is another code's", evidence=evidence)
    if link.amount_minor not in (None, order.amount_minor):
        raise errors.ProtocolViolation("the link asks for another amount", evidence=evidence)
    expires_at = answer.qr_expiration_date
    return NextAction(
        kind=NextActionKind.LINK,
        payload=answer.payload or "",
        expires_at=None if expires_at is None else expires_at.astimezone(UTC),
    )


def _refund_outcome(answer: RefundAnswer, order: Order, evidence: str) -> Outcome:
    if answer.refund_id != order.reference:
        raise errors.ProtocolViolation("the answer is about another refund", evidence=evidence)
    verdict = verdicts.REFUND_STATUSES.get(answer.refund_status, Verdict.UNKNOWN)
    return Outcome(
        verdict,
        amount_minor=kopecks(answer.amount, evidence),
        currency=answer.currency,
        provider_tx_id=answer.refund_id,
        reason="declined" if verdict is Verdict.DECLINED else "",
        evidence=evidence,
        basis=Basis.REFERENCE_STATUS,
    )


def _signed(callback: Callback, secret: str) -> tuple[dict[str, Any], str]:
    """Return the callback's document and what of it is signed, rightly. Raises CallbackRefused."""
    signature = callback.headers.get(signing.SIGNATURE_HEADER.lower(), "")
    try:
        told: dict[str, Any] = dict(read_json(callback.body))
        text = signing.payout_text(told["payout"]) if "payout" in told else signing.payment_text(told)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CallbackRefused("malformed", 400) from error
    if not signing.is_signed(secret, text, signature.strip().lower()):
        raise CallbackRefused("signature_invalid")
    return told, text
