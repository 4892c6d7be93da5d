"""How a request is read: bounded body, signature, trace. Nothing of a body is ever logged."""

import re
from collections import Counter
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request

from core.services.access.keys import Authenticator, Caller, HeldNonce, SignedRequest, acting_of
from core.services.problems import Refusal
from schemas.faults import first_fault
from schemas.json_names import named_twice
from wire.signing import (
    IDEMPOTENCY_HEADER,
    KEY_HEADER,
    NONCE_HEADER,
    ON_BEHALF_OF_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
)

BODY_MAX_BYTES: Final = 64 * 1024
"""The largest body of a single request."""
BATCH_BODY_MAX_BYTES: Final = 4 * 1024 * 1024
"""The largest body of a batch, of evidence or of permits."""

_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""Escaped as JSON has it, and not what follows a backslash that is itself escaped."""

Model = TypeVar("Model", bound=BaseModel)


class Page(BaseModel):
    """Which page of a list is asked for."""

    model_config = ConfigDict(extra="forbid")
    cursor: Annotated[str, Field(max_length=400)] | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100


async def read_body(request: Request, limit_bytes: int = BODY_MAX_BYTES) -> bytes:
    """Return the body. Raises Refusal `body_too_large` without reading on, and ClientDisconnect."""
    _require_fitting(request, limit_bytes)
    parts, size, is_more = list[bytes](), 0, True
    # By hand: most bodies are one message, and the framework's two generators cost more than all that reads it.
    while is_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        is_more = message.get("more_body", False)
    return b"".join(parts)


async def parts_of(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Raises Refusal `body_too_large` without reading on."""
    _require_fitting(request, limit_bytes)
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        yield part


def _require_fitting(request: Request, limit_bytes: int) -> None:
    told = request.headers.get("content-length", "0")
    if told.isdigit() and int(told) > limit_bytes:
        raise _too_large(limit_bytes)


async def signed_by(
    request: Request, body: bytes, authenticator: Authenticator, kind: str, digest: str | None = None
) -> Caller:
    """Return who signed the request with a key of this kind. Raises Refusal, one of the 401s.

    `digest` is the SHA-256 of a body that has not been read yet.
    """
    return _of_kind(await authenticator.authenticate(_signed(request, body, digest)), kind)


class SignedAndUnspent:
    """Lends who signed, and the nonce, for whoever spends it in the transaction that does what is asked.

    A request that is refused before spends it at the block's end: a replay is told so, whatever else is wrong with it.
    Entering raises Refusal, one of the 401s, and leaving `replayed_nonce`. A generator would cost twice as much.
    """

    __slots__ = ("_authenticator", "_body", "_kind", "_nonce", "_request")

    def __init__(self, request: Request, body: bytes, authenticator: Authenticator, kind: str) -> None:
        self._request, self._body, self._authenticator, self._kind = request, body, authenticator, kind

    async def __aenter__(self) -> tuple[Caller, HeldNonce]:
        signed = _signed(self._request, self._body)
        caller, self._nonce = await self._authenticator.examine(signed)
        try:
            return _of_kind(acting_of(caller, signed), self._kind), self._nonce
        except Refusal:
            await self._authenticator.spend(self._nonce)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Refusal):
            await self._authenticator.spend(self._nonce)


def _signed(request: Request, body: bytes, digest: str | None = None) -> SignedRequest:
    headers = request.headers
    signed = SignedRequest(
        method=request.method,
        path=request.scope["raw_path"].decode("latin-1"),
        query=request.scope["query_string"].decode("latin-1"),
        body=body,
        key_id=headers.get(KEY_HEADER, ""),
        timestamp=headers.get(TIMESTAMP_HEADER, ""),
        nonce=headers.get(NONCE_HEADER, ""),
        signature=headers.get(SIGNATURE_HEADER, ""),
        on_behalf_of=headers.get(ON_BEHALF_OF_HEADER),
        idempotency_key=headers.get(IDEMPOTENCY_HEADER),
        digest=digest,
    )
    if not (signed.key_id and signed.signature):
        raise Refusal("unauthenticated", "sign the request: see docs/signing.md")
    return signed


def _of_kind(caller: Caller, kind: str) -> Caller:
    if caller.kind != kind:
        raise Refusal("unauthenticated", f"this listener takes keys of kind {kind}")
    return caller


def parse(
    model: type[Model], body: bytes, content_type: str | None = "application/json", *, sealed: bool = False
) -> Model:
    """Return the model in the body; what is `sealed` may have U+0000, which PostgreSQL stores in no text.

    Raises Refusal: unsupported_media_type, malformed_json, duplicate_field, invalid_request.
    """
    if content_type is not None and content_type.partition(";")[0].strip().lower() not in ("application/json", ""):
        raise Refusal("unsupported_media_type", "send application/json")
    _require_each_name_once(body)
    try:
        made = model.model_validate_json(body)
    except ValidationError as error:
        raise refusal_of(error) from error
    if not sealed and has_nul(body):
        raise _refusal_of_nul(_place_of_nul(orjson.loads(body)))
    return made


def has_nul(body: bytes) -> bool:
    """Tell whether a text of the JSON may have U+0000."""
    return b"\\u0000" in body and _NUL.search(body) is not None


def require_no_nul(told: Any) -> None:
    """Raise Refusal `invalid_request` where a text in what was told has U+0000, which PostgreSQL stores in no text."""
    if (field := _place_of_nul(told)) is not None:
        raise _refusal_of_nul(field)


def _refusal_of_nul(field: str | None) -> Refusal:
    return Refusal("invalid_request", f"{field or 'body'}: the character U+0000 cannot be stored", field=field)


def _require_each_name_once(body: bytes) -> None:
    """Raise Refusal `duplicate_field`: of two amounts in one body, readers would not agree on which one is meant."""
    name = named_twice(body)
    if name is None:
        return
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        # What is no JSON is refused by whoever reads it next.
        return
    raise Refusal("duplicate_field", f"{name[:64]!r} stands twice in one object: send it once", field=name[:64])


def _place_of_nul(value: Any, at: str = "") -> str | None:
    if isinstance(value, str):
        return at if "\0" in value else None
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = (_place_of_nul(each, f"{at}.{name}".lstrip(".")) for name, each in inner)
    return next((place for place in found if place), None)


def refusal_of(error: ValidationError) -> Refusal:
    """Return the refusal of the first fault. The value at fault stays out of the text: it may be a payee."""
    fault = first_fault(error)
    if fault.kind == "json_invalid":
        return Refusal("malformed_json", "the body is not JSON: check quotes and commas")
    return Refusal("invalid_request", f"{fault.field or 'body'}: {fault.words}", field=fault.field or None)


def query_of(model: type[Model], request: Request) -> Model:
    """Return what the query asks for. Raises Refusal `invalid_request`."""
    asked = dict(request.query_params)
    for field, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if times > 1:
            name = field[:64]
            raise Refusal("invalid_request", f"{name}: stands {times} times in the query: send it once", field=name)
    for field, value in asked.items():
        if field and "\0" in value:  # what has no name is no field of the model, which says so
            raise Refusal("invalid_request", f"{field}: the character U+0000 is in nothing that is stored", field=field)
    try:
        return model.model_validate(asked)
    except ValidationError as error:
        raise refusal_of(error) from error


def path_id(request: Request, name: str) -> UUID:
    """Return an id of the path. Raises Refusal `not_found`: what is no id names nothing."""
    try:
        return UUID(request.path_params[name])
    except ValueError as error:
        raise Refusal("not_found", f"{name} is not an id") from error


def path_text(request: Request, name: str) -> str:
    """Return a text of the path. Raises Refusal `not_found`: no name has U+0000 in it."""
    text: str = request.path_params[name]
    if "\0" in text:
        raise Refusal("not_found", f"{name} names nothing")
    return text


def _too_large(limit_bytes: int) -> Refusal:
    return Refusal("body_too_large", f"a body here has at most {limit_bytes} bytes: split it")
