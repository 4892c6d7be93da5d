"""PromptPay through IPPS: translates orders of the runtime into calls, and answers into outcomes."""

import re
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Final

from adapters.promptpay import registers, verdicts
from adapters.promptpay.client import IppsClient
from adapters.promptpay.collections import PromptPayCollections
from adapters.promptpay.models import Channel, LookupRequest, TransferAnswer, TransferRequest
from adapters.promptpay.settings import PromptPaySettings
from adapters.runtime import errors
from adapters.runtime.port import Order, Outcome
from adapters.runtime.references import ReferenceTaken, ReferenceUnknown, status_of_existing
from schemas.codes.proxies import ProxyType, proxy_wire
from schemas.codes.tlv import QrError
from schemas.money import AmountError, currency_of, to_major_text, to_minor
from schemas.operations import OperationType
from schemas.permits import LookupBinding
from schemas.rails import Capabilities, PayeeType, RailRegistration, Timing
from schemas.registers import RegisterLine
from schemas.results import Basis, Verdict

RAIL: Final = "promptpay"
PROVIDER: Final = "ipps"

_THB: Final = currency_of("THB")

_NO_FEE: Final = re.compile(r"0(?:\.0{1,2})?", re.ASCII)

# A biller's id has 13 digits and a suffix of two; some codes leave the suffix out, and IPPS knows what they mean.
_BILL: Final = re.compile(
    r"(?P<biller>[0-9]{13}(?:[0-9]{2})?):(?P<ref1>[A-Z0-9]{1,20})(?::(?P<ref2>[A-Z0-9]{1,20}))?", re.ASCII
)
_PAYOUTS: Final = (OperationType.PAYOUT,)

_PROXIES: Final = {
    "mobile": ProxyType.MOBILE,
    "national_id": ProxyType.NATIONAL_ID,
    "ewallet": ProxyType.EWALLET,
}


class PromptPayRail(PromptPayCollections):
    """The rail. It looks up, pays, inquires and cancels by reference, takes money in by QR code and pays it back."""

    def __init__(self, client: IppsClient, settings: PromptPaySettings, timing: Timing) -> None:
        super().__init__(client, settings)
        self._timing = timing

    def registration(self) -> RailRegistration:
        """Return what IPPS can do."""
        capabilities = Capabilities(
            lookup=True,
            inquiry=True,
            deduplicates_reference=True,
            dedup_window_s=self._settings.dedup_window_s,
            cancel_by_reference=True,
            negative_is_final_for_reference=True,
            not_found_horizon_s=self._timing.claim_idle_s + self._settings.settlement_s,
            request_expiry=True,
            max_amount_minor=self._settings.max_amount_minor,
            currencies=["THB"],
            business_timezone="Asia/Bangkok",
        )
        collects = capabilities.model_copy(
            update={
                "lookup": False,
                "callbacks": True,
                "refunds": "parts",
                "collection_lives_s": self._settings.qr_lives_s,
                "max_amount_minor": self._settings.qr_max_amount_minor,
            }
        )
        return RailRegistration(
            rail=RAIL,
            provider=PROVIDER,
            provider_account=self._settings.provider_account,
            environment=self._settings.environment,
            operations={
                OperationType.PAYOUT: capabilities,
                OperationType.BILL_PAYMENT: capabilities,
                OperationType.TOPUP: collects,
                OperationType.DEPOSIT: collects.model_copy(
                    update={"collection_lives_s": self._settings.static_qr_lives_s, "collection_reusable": True}
                ),
                # A refund is known by its reference for good, nothing takes one back, and its request has no expiry.
                OperationType.REFUND: capabilities.model_copy(
                    update={"lookup": False, "cancel_by_reference": False, "request_expiry": False}
                ),
            },
            payee_types=PAYEE_TYPES,
            timing=self._timing,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def register(self, day: date) -> AsyncIterator[Sequence[RegisterLine]]:
        """Yield the register of a Bangkok day."""
        return registers.register(self._client, day)

    async def lookup(self, order: Order) -> Outcome:
        """Ask who is behind the proxy, the bill or the account; the answer's expiry bounds the payment."""
        answer, evidence = await self._client.lookup(lookup_request(order))
        binding = LookupBinding(
            lookup_id=answer.lookup_id, expires_at=answer.expires_at, fee_minor=fee_minor(answer.fee, evidence)
        )
        return Outcome(Verdict.FOUND, lookup=binding, payee_name=answer.payee_name, evidence=evidence)

    async def pay(self, order: Order) -> Outcome:
        """Confirm what was looked up, under the reference. A reference that is taken is asked about instead."""
        if order.lookup is None:
            raise errors.Rejected("lookup_missing", "a transfer is bound to a lookup")
        request = TransferRequest(
            client_ref=order.reference,
            lookup_id=order.lookup.lookup_id,
            amount=to_major_text(order.amount_minor, _THB),
        )
        try:
            answer, evidence = await self._client.transfer(request)
        except ReferenceTaken:
            return await status_of_existing(self.inquire(order))
        except errors.NotSent as refused:
            if refused.reason != verdicts.LOOKUP_EXPIRED:
                raise
            # Sent again it would expire again: no retry is asked for, so the core ends it if nothing else was sent.
            return Outcome(Verdict.NOT_SENT, reason=verdicts.LOOKUP_EXPIRED, evidence=refused.evidence)
        # The answer shows the transfer of this reference: a status of the reference, not merely of this request.
        return _outcome(answer, order, evidence, Basis.REFERENCE_STATUS)

    async def inquire(self, order: Order) -> Outcome:
        """Ask for the status of the reference."""
        try:
            answer, evidence = await self._client.inquire(order.reference)
        except ReferenceUnknown as unknown:
            return unknown.outcome()
        return _outcome(answer, order, evidence, Basis.REFERENCE_STATUS)

    async def cancel(self, order: Order) -> Outcome:
        """Bury the reference; too late shows as the status that it has."""
        answer, evidence = await self._client.cancel(order.reference)
        return _outcome(answer, order, evidence, Basis.REFERENCE_STATUS)


PAYEE_TYPES: Final = {
    "mobile": PayeeType(
        pattern=r"0[689][0-9]{8}",
        example="0812345678",
        remedy="write a Thai mobile number with ten digits",
        operations=_PAYOUTS,
    ),
    "national_id": PayeeType(
        pattern=r"[0-9]{13}",
        example="1101700230708",
        remedy="write a national or tax id with 13 digits",
        operations=_PAYOUTS,
    ),
    "ewallet": PayeeType(
        pattern=r"[0-9]{15}",
        example="004999000288505",
        remedy="write an e-wallet id with 15 digits",
        operations=_PAYOUTS,
    ),
    "bank_account": PayeeType(
        pattern=r"[0-9]{3}-[0-9]{5,40}",
        example="014-1234567890",
        remedy="write the bank's 3-digit code, a hyphen and the account's digits, without a name",
        operations=_PAYOUTS,
    ),
    "bill": PayeeType(
        pattern=_BILL.pattern,
        example="099400015804189:INV2026001:CUST7",
        remedy="write the biller's 15 digits, Ref1 and, where the biller wants it, Ref2, with colons between",
        operations=(OperationType.BILL_PAYMENT,),
    ),
}


def lookup_request(order: Order) -> LookupRequest:
    """Return what IPPS is asked about the payee. Raises Rejected where PromptPay pays no such payee."""
    amount = to_major_text(order.amount_minor, _THB)
    payee = order.payee
    kind = _PROXIES.get(payee.type) if payee is not None else None
    if payee is not None and kind is not None:
        try:
            proxy = proxy_wire(kind, payee.value)
        except QrError as error:
            raise errors.Rejected(error.code) from error
        return LookupRequest(
            client_ref=order.reference,
            channel=Channel.PROXY,
            amount=amount,
            proxy_type=kind.value.upper(),
            proxy=proxy,
        )
    if payee is not None and payee.type == "bank_account":
        bank_code, _, account = payee.value.partition("-")
        return LookupRequest(
            client_ref=order.reference, channel=Channel.ACCOUNT, amount=amount, bank_code=bank_code, proxy=account
        )
    bill = _BILL.fullmatch(payee.value) if payee is not None and payee.type == "bill" else None
    if bill is None:
        raise errors.Rejected("payee_type_unknown", "PromptPay pays a proxy, an account at a bank, or a bill")
    return LookupRequest(
        client_ref=order.reference,
        channel=Channel.BILL,
        amount=amount,
        biller=bill["biller"],
        ref1=bill["ref1"],
        ref2=bill["ref2"],
    )


def _outcome(answer: TransferAnswer, order: Order, evidence: str, basis: Basis) -> Outcome:
    if answer.client_ref != order.reference:
        raise errors.ProtocolViolation("the answer is about another reference", evidence=evidence)
    verdict = verdicts.verdict_of(verdicts.STATUSES, answer.status)
    return Outcome(
        verdict,
        amount_minor=_amount_minor(answer.amount, evidence),
        currency=_THB.code if answer.amount is not None else None,
        provider_tx_id=answer.psp_txid,
        reason=verdicts.reason_of(verdict, answer.reason),
        evidence=evidence,
        basis=basis,
    )


def _amount_minor(text: str | None, evidence: str) -> int | None:
    return None if text is None else _minor(text, evidence)


def _minor(text: str, evidence: str) -> int:
    try:
        return to_minor(text, _THB)
    except AmountError as error:
        raise errors.ProtocolViolation("the answer's amount is no amount", evidence=evidence) from error


def fee_minor(text: str, evidence: str) -> int:
    """Return the satang of a lookup's fee, which may be nothing. Raises ProtocolViolation."""
    if _NO_FEE.fullmatch(text):
        return 0  # to_minor takes positive amounts only
    return _minor(text, evidence)
