"""PromptPay through IPPS: translates orders of the runtime into calls, and answers into outcomes."""

import re
from typing import Final

from adapters.promptpay.client import LOOKUP_EXPIRED, IppsClient
from adapters.promptpay.collections import PromptPayCollections
from adapters.promptpay.models import LookupRequest, TransferAnswer, TransferRequest, TransferStatus
from adapters.promptpay.proxies import ProxyType, proxy_wire
from adapters.promptpay.settings import PromptPaySettings
from adapters.promptpay.tlv import QrError
from adapters.runtime import errors
from adapters.runtime.port import Order, Outcome
from adapters.runtime.references import ReferenceTaken, ReferenceUnknown, status_of_existing
from schemas.money import AmountError, currency_of, to_major_text, to_minor
from schemas.operations import OperationType
from schemas.permits import LookupBinding
from schemas.rails import Capabilities, PayeeType, RailRegistration, Timing
from schemas.results import Basis, Verdict

RAIL: Final = "promptpay"
PROVIDER: Final = "ipps"

_THB: Final = currency_of("THB")

_NO_FEE: Final = re.compile(r"0(?:\.0{1,2})?", re.ASCII)

_PROXIES: Final = {
    "mobile": ProxyType.MOBILE,
    "national_id": ProxyType.NATIONAL_ID,
    "ewallet": ProxyType.EWALLET,
}

# Every status of the contract and what it means for the money. A status that is not here is UNKNOWN.
VERDICTS: Final = {
    TransferStatus.PROCESSING: Verdict.PENDING,
    TransferStatus.SUCCEEDED: Verdict.SUCCEEDED,
    TransferStatus.FAILED: Verdict.DECLINED,
    TransferStatus.CANCELED: Verdict.CANCELLED,
    TransferStatus.EXPIRED: Verdict.DECLINED,
    TransferStatus.REFUNDED: Verdict.RETURNED,
}

# Reasons that the contract names, as they are; any other becomes `declined`.
_REASONS: Final = frozenset({"account_closed", "insufficient_provider_funds", "limit_exceeded"})


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
        return RailRegistration(
            rail=RAIL,
            provider=PROVIDER,
            provider_account=self._settings.provider_account,
            environment=self._settings.environment,
            operations={
                OperationType.PAYOUT: capabilities,
                OperationType.TOPUP: capabilities.model_copy(
                    update={
                        "lookup": False,
                        "callbacks": True,
                        "refunds": "parts",
                        "collection_lives_s": self._settings.qr_lives_s,
                        "max_amount_minor": self._settings.qr_max_amount_minor,
                    }
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

    async def lookup(self, order: Order) -> Outcome:
        """Ask who is behind the proxy; the answer's expiry bounds the payment."""
        kind, proxy = _proxy(order)
        request = LookupRequest(
            client_ref=order.reference,
            channel="TAG29",
            proxy_type=kind.value.upper(),
            proxy=proxy,
            amount=to_major_text(order.amount_minor, _THB),
        )
        answer, evidence = await self._client.lookup(request)
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
            if refused.reason != LOOKUP_EXPIRED:
                raise
            # Sent again it would expire again: no retry is asked for, so the core ends it if nothing else was sent.
            return Outcome(Verdict.NOT_SENT, reason=LOOKUP_EXPIRED, evidence=refused.evidence)
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
        pattern=r"0[689][0-9]{8}", example="0812345678", remedy="write a Thai mobile number with ten digits"
    ),
    "national_id": PayeeType(
        pattern=r"[0-9]{13}", example="1101700230708", remedy="write a national or tax id with 13 digits"
    ),
    "ewallet": PayeeType(pattern=r"[0-9]{15}", example="004999000288505", remedy="write an e-wallet id with 15 digits"),
}


def _proxy(order: Order) -> tuple[ProxyType, str]:
    kind = _PROXIES.get(order.payee.type) if order.payee is not None else None
    if order.payee is None or kind is None:
        raise errors.Rejected("payee_type_unknown", "PromptPay pays a mobile number, a national id or an e-wallet")
    try:
        return kind, proxy_wire(kind, order.payee.value)
    except QrError as error:
        raise errors.Rejected(error.code) from error


def _outcome(answer: TransferAnswer, order: Order, evidence: str, basis: Basis) -> Outcome:
    if answer.client_ref != order.reference:
        raise errors.ProtocolViolation("the answer is about another reference", evidence=evidence)
    try:
        verdict = VERDICTS.get(TransferStatus(answer.status), Verdict.UNKNOWN)
    except ValueError:
        verdict = Verdict.UNKNOWN
    negative = verdict in (Verdict.DECLINED, Verdict.CANCELLED)
    return Outcome(
        verdict,
        amount_minor=_amount_minor(answer.amount, evidence),
        currency=_THB.code if answer.amount is not None else None,
        provider_tx_id=answer.psp_txid,
        reason=(answer.reason if answer.reason in _REASONS else "declined") if negative else "",
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
