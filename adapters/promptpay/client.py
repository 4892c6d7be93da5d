"""The client of IPPS (PPXC): the provider's dialect and nothing else. It knows no jobs and repeats nothing.

Every method sends one request and returns the parsed answer, or raises the errors of `adapters.runtime.errors`: what
the provider's tables do not name is Indeterminate.
"""

import time
from datetime import date
from typing import Final, TypeVar

import httpx
from pydantic import ValidationError

from adapters.promptpay import signing, verdicts
from adapters.promptpay.models import (
    ErrorAnswer,
    LookupAnswer,
    LookupRequest,
    Payload,
    QrAnswer,
    QrRequest,
    RefundRequest,
    RegisterPage,
    TransferAnswer,
    TransferRequest,
)
from adapters.runtime import errors
from adapters.runtime.references import ReferenceUnknown

Answer = TypeVar("Answer", bound=Payload)

_EVIDENCE_CHARACTERS: Final = 8_000
_THROTTLED_S: Final = 5


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

    async def register(self, day: date, after: int) -> RegisterPage | None:
        """Return the lines of a day's register after a number; None where there is no register."""
        try:
            page, _ = await self._ask("GET", f"/v1/settlements/{day.isoformat()}?after={after}", RegisterPage)
        except ReferenceUnknown:
            return None
        return page

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
            raise verdicts.refusal(response.status_code, _code(response), evidence, _wait_s(response))
        try:
            return model.model_validate_json(response.content), evidence
        except ValidationError as error:
            raise errors.ProtocolViolation("the answer does not parse", evidence=evidence) from error


def _status_beside_refusal(response: httpx.Response) -> bool:
    """Whether the refusal to cancel carries the transfer itself: then that is the answer."""
    return (response.status_code, _code(response)) == verdicts.NOT_CANCELABLE


def _wait_s(response: httpx.Response) -> int:
    told = response.headers.get("Retry-After", "")
    return int(told) if told.isascii() and told.isdigit() else _THROTTLED_S


def _code(response: httpx.Response) -> str:
    try:
        return ErrorAnswer.model_validate_json(response.content).code
    except ValidationError:
        return ""
