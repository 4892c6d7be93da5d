"""The client of IPPS (PPXC): the provider's dialect and nothing else. It knows no jobs and repeats nothing.

Every method sends one request and returns the parsed answer, or raises the errors of `adapters.runtime.errors`: what
the provider's tables do not name is Indeterminate.
"""

import time
from collections.abc import Mapping
from typing import Final, TypeVar

import httpx
from pydantic import ValidationError

from adapters.promptpay import signing
from adapters.promptpay.models import (
    ErrorAnswer,
    LookupAnswer,
    LookupRequest,
    Payload,
    QrAnswer,
    QrRequest,
    RefundRequest,
    TransferAnswer,
    TransferRequest,
)
from adapters.runtime import errors
from adapters.runtime.references import ReferenceTaken, ReferenceUnknown

Answer = TypeVar("Answer", bound=Payload)

LOOKUP_EXPIRED: Final = "lookup_expired"

# Refusals of a submission that say for certain that it was not executed. A code that is not here is Indeterminate.
_REFUSALS: Final[Mapping[tuple[int, str], str]] = {
    (404, "payee_not_found"): "payee_not_found",
    (404, "biller_not_found"): "biller_not_found",
    (422, "bill_reference_refused"): "bill_reference_refused",
    (422, "bill_amount_refused"): "bill_amount_refused",
    (409, "bill_already_paid"): "bill_already_paid",
    (410, "bill_expired"): "bill_expired",
    (422, "amount_invalid"): "amount_invalid",
    (422, "amount_mismatch"): "amount_mismatch",
    (422, "field_invalid"): "field_invalid",
    (404, "payment_not_found"): "payment_not_found",
    (422, "refund_exceeds_payment"): "refund_exceeds_payment",
}
_NOT_TAKEN: Final[Mapping[tuple[int, str], str]] = {
    (410, "lookup_expired"): LOOKUP_EXPIRED,
    (404, "lookup_not_found"): LOOKUP_EXPIRED,
}
_UNKNOWN: Final = frozenset({"transfer_not_found", "qr_not_found", "refund_not_found"})
_EVIDENCE_CHARACTERS: Final = 8_000


class IppsClient:
    """Speaks to IPPS over a client whose time-outs the runtime set."""

    def __init__(self, http: httpx.AsyncClient, key_id: str, secret: str) -> None:
        self._http, self._key_id, self._secret = http, key_id, secret

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def lookup(self, request: LookupRequest) -> tuple[LookupAnswer, str]:
        """Return who is behind a proxy, and the raw answer. Raises Rejected `payee_not_found` and others."""
        return await self._ask("POST", "/v1/lookups", LookupAnswer, request)

    async def transfer(self, request: TransferRequest) -> tuple[TransferAnswer, str]:
        """Submit a transfer. Raises ReferenceTaken, Rejected, NotSent, Throttled, Indeterminate."""
        return await self._ask("POST", "/v1/transfers", TransferAnswer, request)

    async def inquire(self, reference: str) -> tuple[TransferAnswer, str]:
        """Return the status of a reference. Raises ReferenceUnknown."""
        return await self._ask("GET", f"/v1/transfers/by-ref/{reference}", TransferAnswer)

    async def cancel(self, reference: str) -> tuple[TransferAnswer, str]:
        """Bury a reference; the answer's status says whether it was too late."""
        return await self._ask("POST", f"/v1/transfers/by-ref/{reference}/cancel", TransferAnswer)

    async def make_qr(self, request: QrRequest) -> tuple[QrAnswer, str]:
        """Return a code; the same reference gives the same one. Raises Rejected, NotSent, Throttled, Indeterminate."""
        return await self._ask("POST", "/v1/qr", QrAnswer, request)

    async def find_qr(self, reference: str) -> tuple[QrAnswer, str]:
        """Return where a code stands. Raises ReferenceUnknown."""
        return await self._ask("GET", f"/v1/qr/by-ref/{reference}", QrAnswer)

    async def cancel_qr(self, reference: str) -> tuple[QrAnswer, str]:
        """Bury a code, also one that was never made; the answer's status says whether it was too late."""
        return await self._ask("POST", f"/v1/qr/by-ref/{reference}/cancel", QrAnswer)

    async def refund(self, request: RefundRequest) -> tuple[TransferAnswer, str]:
        """Pay back. Raises ReferenceTaken, Rejected, Throttled, Indeterminate."""
        return await self._ask("POST", "/v1/refunds", TransferAnswer, request)

    async def find_refund(self, reference: str) -> tuple[TransferAnswer, str]:
        """Return the status of a refund by its own reference. Raises ReferenceUnknown."""
        return await self._ask("GET", f"/v1/refunds/by-ref/{reference}", TransferAnswer)

    async def _ask(
        self, method: str, path: str, model: type[Answer], request: Payload | None = None
    ) -> tuple[Answer, str]:
        body = request.model_dump_json(exclude_none=True).encode() if request is not None else b""
        timestamp = str(int(time.time()))
        headers = {
            signing.KEY_HEADER: self._key_id,
            signing.TIMESTAMP_HEADER: timestamp,
            signing.SIGNATURE_HEADER: signing.sign(self._secret, timestamp, body),
            "Content-Type": "application/json",
        }
        try:
            response = await self._http.request(method, path, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise errors.transport_error(error) from error
        evidence = f"{response.status_code} {response.text}"[:_EVIDENCE_CHARACTERS]
        if not response.is_success and not _status_beside_refusal(response):
            raise _refusal(response, evidence)
        try:
            return model.model_validate_json(response.content), evidence
        except ValidationError as error:
            raise errors.ProtocolViolation("the answer does not parse", evidence=evidence) from error


def _status_beside_refusal(response: httpx.Response) -> bool:
    """Whether the refusal to cancel carries the transfer itself: then that is the answer."""
    return response.status_code == httpx.codes.CONFLICT and _code(response) == "not_cancelable"


def _refusal(response: httpx.Response, evidence: str) -> Exception:
    status, code = response.status_code, _code(response)
    if (status, code) in _REFUSALS:
        return errors.Rejected(_REFUSALS[status, code], evidence=evidence)
    if (status, code) in _NOT_TAKEN:
        return errors.NotSent(code, reason=_NOT_TAKEN[status, code], evidence=evidence)
    if status == httpx.codes.NOT_FOUND and code in _UNKNOWN:
        return ReferenceUnknown(evidence)
    if (status, code) == (409, "duplicate_reference"):
        return ReferenceTaken()
    if status == httpx.codes.TOO_MANY_REQUESTS:
        told = response.headers.get("Retry-After", "")
        return errors.Throttled(
            "throttled", after_s=int(told) if told.isascii() and told.isdigit() else 5, evidence=evidence
        )
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return errors.Misconfigured(f"the provider refuses our credentials: {status} {code}", evidence=evidence)
    return errors.Indeterminate(f"HTTP {status} {code}", reason="provider_error", evidence=evidence)


def _code(response: httpx.Response) -> str:
    try:
        return ErrorAnswer.model_validate_json(response.content).code
    except ValidationError:
        return ""
