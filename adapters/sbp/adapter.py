"""SBP through QP: translates orders of the runtime into calls, and answers into outcomes."""

import re
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Final

from adapters.runtime import errors
from adapters.runtime.port import Order, Outcome
from adapters.runtime.references import ReferenceTaken, ReferenceUnknown, status_of_existing
from adapters.sbp import registers, verdicts
from adapters.sbp.banks import BankList
from adapters.sbp.client import QpClient
from adapters.sbp.collecting import CollectsByQr
from adapters.sbp.kopecks import RUB, kopecks
from adapters.sbp.models import CheckRequest, PayoutAnswer, PayoutParams, PayoutRequest, PayoutStatus
from adapters.sbp.settings import SbpSettings
from schemas.money import to_major_text
from schemas.operations import OperationType
from schemas.permits import LookupBinding
from schemas.rails import Capabilities, PayeeType, RailRegistration, Timing
from schemas.registers import RegisterLine
from schemas.results import Basis, Verdict

RAIL: Final = "sbp"
PROVIDER: Final = "qp"
PHONE_BANK: Final = "phone_bank"

_REFERENCE_LENGTH: Final = 20
_NO_FEE: Final = re.compile(r"0(?:\.0{1,2})?", re.ASCII)
_PAYEE: Final = re.compile(r"(?P<phone>7[0-9]{10})@(?P<bank>[0-9]{12}|[A-Z][A-Z0-9_]{1,39})", re.ASCII)

PAYEE_TYPES: Final = {
    PHONE_BANK: PayeeType(
        pattern=r"7[0-9]{10}@(?:[0-9]{12}|[A-Z][A-Z0-9_]{1,39})",
        example="79161234567@100000000004",
        remedy="write the phone with eleven digits, an at sign, and the bank's member id with 12 digits or its alias",
    )
}


class SbpRail(CollectsByQr):
    """The rail. It checks the receiver, pays, and inquires; QP has no cancel of a payout by reference."""

    def __init__(self, client: QpClient, settings: SbpSettings, timing: Timing) -> None:
        super().__init__(client, settings)
        self._timing = timing
        self.banks = BankList(client.banks, fresh_s=settings.banks_fresh_s, retry_s=settings.banks_retry_s)

    def register(self, day: date) -> AsyncIterator[Sequence[RegisterLine]]:
        """Yield the register of a Moscow day."""
        return registers.register(self._client, day)

    def registration(self) -> RailRegistration:
        """Return what QP can do. A payout is bound to a check that expires: that is the request's expiry."""
        payout = Capabilities(
            lookup=True,
            inquiry=True,
            deduplicates_reference=True,
            dedup_window_s=self._settings.dedup_window_s,
            negative_is_final_for_reference=True,
            not_found_horizon_s=self._timing.claim_idle_s + self._settings.settlement_s,
            request_expiry=True,
            max_amount_minor=self._settings.max_amount_minor,
            currencies=[RUB.code],
            reference_length=_REFERENCE_LENGTH,
            business_timezone="Europe/Moscow",
        )
        return RailRegistration(
            rail=RAIL,
            provider=PROVIDER,
            provider_account=self._settings.provider_account,
            environment=self._settings.environment,
            operations={
                OperationType.PAYOUT: payout,
                # A refund is known by its id for good; nothing takes one back, and its request has no expiry.
                OperationType.REFUND: payout.model_copy(
                    update={"lookup": False, "dedup_window_s": None, "request_expiry": False}
                ),
                OperationType.TOPUP: self._collection(self._settings.qr_lives_s),
                OperationType.DEPOSIT: self._collection(self._settings.static_qr_lives_s).model_copy(
                    update={"collection_reusable": True}
                ),
            },
            payee_types=PAYEE_TYPES,
            timing=self._timing,
        )

    def _collection(self, lives_s: float) -> Capabilities:
        """An order is unique for ever, and one that is cancelled can never be paid, seen or not."""
        return Capabilities(
            inquiry=True,
            deduplicates_reference=True,
            cancel_by_reference=True,
            negative_is_final_for_reference=True,
            not_found_horizon_s=self._timing.claim_idle_s + self._settings.settlement_s,
            request_expiry=True,
            callbacks=True,
            refunds="parts",
            collection_lives_s=lives_s,
            max_amount_minor=self._settings.max_amount_minor,
            currencies=[RUB.code],
            reference_length=_REFERENCE_LENGTH,
            business_timezone="Europe/Moscow",
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.banks.close()
        await self._client.aclose()

    async def lookup(self, order: Order) -> Outcome:
        """Check the receiver's name; the answer's expiry bounds the payout."""
        request = CheckRequest(
            account=self._settings.account,
            amount=to_major_text(order.amount_minor, RUB),
            payout_params=await self._payee(order),
        )
        answer, evidence = await self._client.check(request)
        binding = LookupBinding(
            lookup_id=answer.check_id, expires_at=answer.expires_date, fee_minor=fee_minor(answer.fee, evidence)
        )
        return Outcome(Verdict.FOUND, lookup=binding, payee_name=answer.receiver_name, evidence=evidence)

    async def pay(self, order: Order) -> Outcome:
        """Pay what was checked, under the reference. A reference that is taken is asked about instead."""
        if order.lookup is None:
            raise errors.Rejected("lookup_missing", "a payout is bound to a check of the receiver")
        request = PayoutRequest(
            id=order.reference,
            account=self._settings.account,
            amount=to_major_text(order.amount_minor, RUB),
            payout_params=await self._payee(order),
            check_id=order.lookup.lookup_id,
            payment_details=order.message,
            draft=self._settings.two_stage,
        )
        try:
            answer, evidence = await self._submit(request)
        except errors.NotSent as refused:
            if refused.reason != verdicts.LOOKUP_EXPIRED:
                raise
            # Sent again it would expire again: no retry is asked for, so the core ends it if nothing else was sent.
            return Outcome(Verdict.NOT_SENT, reason=verdicts.LOOKUP_EXPIRED, evidence=refused.evidence)
        return _outcome(answer, order, evidence)

    async def inquire(self, order: Order) -> Outcome:
        """Ask for the status of the reference: declines are told in no other way."""
        try:
            answer, evidence = await self._client.inquire(order.reference)
        except ReferenceUnknown as unknown:
            return unknown.outcome()
        return _outcome(answer, order, evidence)

    async def _submit(self, request: PayoutRequest) -> tuple[PayoutAnswer, str]:
        """Submit, and confirm where the payout waits for it: the first of two requests never pays by itself."""
        try:
            answer, evidence = await self._client.payout(request)
        except ReferenceTaken:
            answer, evidence = await status_of_existing(self._client.inquire(request.id))
        if request.draft and answer.id == request.id and answer.status.value == PayoutStatus.WAITING_CONFIRMATION:
            _require_same_amount(answer, request, evidence)
            return await self._confirm(request.id)
        return answer, evidence

    async def _confirm(self, reference: str) -> tuple[PayoutAnswer, str]:
        try:
            return await self._client.confirm(reference)
        except errors.NotSent as error:
            if error.reason == verdicts.LOOKUP_EXPIRED:
                # The check ran out between the two: the draft exists, and its status says what became of it.
                return await status_of_existing(self._client.inquire(reference))
            raise

    async def _payee(self, order: Order) -> PayoutParams:
        match = _PAYEE.fullmatch(order.payee.value) if order.payee is not None else None
        if order.payee is None or order.payee.type != PHONE_BANK or match is None:
            raise errors.Rejected("payee_type_unknown", "SBP pays a phone at a bank")
        bank = await self.banks.find(match["bank"])
        return PayoutParams(phone=match["phone"], bank_alias=bank.alias)


def fee_minor(text: str, evidence: str) -> int:
    """Return the kopecks of a check's fee, which may be nothing. Raises ProtocolViolation."""
    if _NO_FEE.fullmatch(text):
        return 0  # to_minor takes positive amounts only
    return kopecks(text, evidence)


def _require_same_amount(answer: PayoutAnswer, request: PayoutRequest, evidence: str) -> None:
    """A draft of another amount is not confirmed: the two requests would be about two payments."""
    if kopecks(answer.amount, evidence) != kopecks(request.amount, evidence):
        raise errors.ProtocolViolation("the draft has another amount", evidence=evidence)


def _outcome(answer: PayoutAnswer, order: Order, evidence: str) -> Outcome:
    """Return the status of the reference: every answer of QP shows the payout itself, not merely the request."""
    if answer.id != order.reference:
        raise errors.ProtocolViolation("the answer is about another reference", evidence=evidence)
    verdict = verdicts.verdict_of(answer.status.value)
    return Outcome(
        verdict,
        amount_minor=kopecks(answer.amount, evidence),
        currency=answer.currency,
        provider_tx_id=answer.transaction_id,
        reason=verdicts.reason_of(verdict, answer.status.decline_reason),
        evidence=evidence,
        basis=Basis.REFERENCE_STATUS,
    )
