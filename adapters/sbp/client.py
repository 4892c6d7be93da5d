"""The client of QP: the provider's dialect and nothing else. It knows no jobs and repeats nothing.

Every method sends one request and returns the parsed answer, or raises the errors of `adapters.runtime.errors`. An
error code in the body counts whatever the HTTP status says: QP answers some refusals under 200.
"""

import json
from datetime import date
from typing import Any, Final, TypeVar

import httpx
import orjson
from pydantic import TypeAdapter, ValidationError

from adapters.runtime import errors
from adapters.runtime.references import ReferenceUnknown
from adapters.sbp import verdicts
from adapters.sbp.models import (
    Bank,
    CheckAnswer,
    CheckRequest,
    OrderAnswer,
    Payload,
    PayoutAnswer,
    PayoutRequest,
    QrRequest,
    RefundAnswer,
    RefundRequest,
    RegisterPage,
)

Answer = TypeVar("Answer")

_PAYOUTS: Final = "/api/payout/v1/payouts"
_EVIDENCE_CHARACTERS: Final = 8_000
_BANKS: Final = TypeAdapter(list[Bank])
_CHECK: Final = TypeAdapter(CheckAnswer)
_PAYOUT: Final = TypeAdapter(PayoutAnswer)
_ORDER: Final = TypeAdapter(OrderAnswer)
_REGISTER: Final = TypeAdapter(RegisterPage)
_REFUND: Final = TypeAdapter(RefundAnswer)


def read_json(content: bytes) -> Any:
    """Return a JSON document with every number as the text that it was written with. Raises ValueError."""
    return json.loads(content, parse_float=str, parse_int=str, parse_constant=str)


def write_json(request: Payload) -> bytes:
    """Return the document of a request; its `amount` becomes a JSON number with exactly our digits."""
    fields = request.model_dump(by_alias=True, exclude_none=True)
    return orjson.dumps({**fields, "amount": orjson.Fragment(fields["amount"])})


class QpClient:
    """Speaks to QP over a client whose time-outs the runtime set."""

    def __init__(self, http: httpx.AsyncClient, secret: str) -> None:
        self._http = http
        self._headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def banks(self) -> list[Bank]:
        """Return the members that take payouts."""
        banks, _ = await self._ask("GET", "/api/payout/v1/sbp/banks", _BANKS)
        return banks

    async def check(self, request: CheckRequest) -> tuple[CheckAnswer, str]:
        """Return who is behind a phone at a bank, and the raw answer. Raises Rejected `payee_not_found` and others."""
        return await self._ask("POST", "/api/payout/v1/checks", _CHECK, request)

    async def payout(self, request: PayoutRequest) -> tuple[PayoutAnswer, str]:
        """Submit a payout, or its draft. Raises ReferenceTaken, Rejected, NotSent, Throttled, Indeterminate."""
        return await self._ask("POST", _PAYOUTS, _PAYOUT, request)

    async def confirm(self, reference: str) -> tuple[PayoutAnswer, str]:
        """Execute a draft, once. Raises as `payout` does; a draft that is no longer one answers its status."""
        return await self._ask("POST", f"{_PAYOUTS}/{reference}/confirm", _PAYOUT)

    async def inquire(self, reference: str) -> tuple[PayoutAnswer, str]:
        """Return the status of a reference. Raises ReferenceUnknown."""
        return await self._ask("GET", f"{_PAYOUTS}/{reference}", _PAYOUT)

    async def issue(self, request: QrRequest) -> tuple[OrderAnswer, str]:
        """Issue a QR code for an order. Raises ReferenceTaken where the order has one."""
        return await self._ask("POST", "/api/sbp/v2/qrs", _ORDER, request)

    async def order(self, reference: str) -> tuple[OrderAnswer, str]:
        """Return an order with every payment by its code. Raises ReferenceUnknown."""
        return await self._ask("GET", f"/api/sbp/v2/orders/{reference}", _ORDER)

    async def cancel_order(self, reference: str) -> tuple[OrderAnswer, str]:
        """Bury an order, also one never seen; the answer's payments say whether it was too late."""
        return await self._ask("POST", f"/api/sbp/v2/orders/{reference}/cancel", _ORDER)

    async def refund(self, request: RefundRequest) -> tuple[RefundAnswer, str]:
        """Pay back a part of a payment. Raises ReferenceTaken where the refund exists."""
        return await self._ask("POST", "/api/sbp/v1/refunds", _REFUND, request)

    async def refund_status(self, reference: str) -> tuple[RefundAnswer, str]:
        """Return the status of a refund. Raises ReferenceUnknown."""
        return await self._ask("GET", f"/api/sbp/v1/refunds/{reference}", _REFUND)

    async def register(self, day: date, after: str) -> RegisterPage | None:
        """Return the lines of a day's register after a place; None where there is no register."""
        path = f"/api/payout/v1/registers/{day.isoformat()}?after={after}"
        try:
            page, _ = await self._ask("GET", path, _REGISTER)
        except ReferenceUnknown:
            return None
        return page

    async def _ask(
        self, method: str, path: str, model: TypeAdapter[Answer], request: Payload | None = None
    ) -> tuple[Answer, str]:
        body = write_json(request) if request is not None else b""
        try:
            response = await self._http.request(method, path, content=body, headers=self._headers)
        except httpx.HTTPError as error:
            raise errors.transport_error(error) from error
        evidence = f"{response.status_code} {response.text}"[:_EVIDENCE_CHARACTERS]
        try:
            document = read_json(response.content)
        except (ValueError, RecursionError) as error:
            if not response.is_success:
                raise _refused(response, "", evidence) from error
            raise errors.ProtocolViolation("the answer is not JSON", evidence=evidence) from error
        code = _code(document)
        if code not in ("", verdicts.SUCCESS) or not response.is_success:
            _require_no_status(document, evidence)
            raise _refused(response, code, evidence)
        try:
            return model.validate_python(document), evidence
        except ValidationError as error:
            raise errors.ProtocolViolation("the answer does not parse", evidence=evidence) from error


def _refused(response: httpx.Response, code: str, evidence: str) -> Exception:
    told = response.headers.get("Retry-After", "")
    after_s = int(told) if told.isascii() and told.isdigit() and len(told) < 6 else 5
    return verdicts.refusal(response.status_code, code, evidence, after_s)


def _code(document: Any) -> str:
    code = document.get("code", "") if isinstance(document, dict) else ""
    return code if isinstance(code, str) else repr(code)


def _require_no_status(document: Any, evidence: str) -> None:
    """An answer that refuses and tells a status says two things about the money: neither is believed."""
    if isinstance(document, dict) and "status" in document:
        raise errors.ProtocolViolation("an error code beside a status", evidence=evidence)
