"""The OpenAPI documents, written from the routes and the models of the contract. No handler can leave them."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from schemas.api import Problem
from wire.signing import (
    BODY_DIGEST_HEADER,
    IDEMPOTENCY_HEADER,
    KEY_HEADER,
    NONCE_HEADER,
    ON_BEHALF_OF_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
)

_JSON: Final = "application/json"
_REFUSED: Final = {
    401: "The signature is missing, wrong, old or used",
    403: "The key does not carry this",
    404: "There is no such thing, or it is another tenant's",
    413: "The body is too large",
    422: "A field is refused",
    500: "The core failed: repeat the request",
    503: "The core cannot work now: repeat the request",
}
_REFUSED_BODY: Final = {
    400: "The body is not JSON",
    409: "The state of things does not allow this",
    415: "The body is not said to be JSON",
}
_KEY: Final = {
    "name": IDEMPOTENCY_HEADER,
    "in": "header",
    "required": True,
    "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,128}$"},
}
_ON_BEHALF_OF: Final = {
    "name": ON_BEHALF_OF_HEADER,
    "in": "header",
    "required": False,
    "description": "A user, and after a space who acts: it reaches that user's wallets alone (docs/acting.md).",
    "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,64}( [\\x21-\\x7e]{1,64})?$"},
}
_BODY_DIGEST: Final = {
    "name": BODY_DIGEST_HEADER,
    "in": "header",
    "required": True,
    "description": "The SHA-256 of the body, in hexadecimal, which the signature is over; a bearer token needs none.",
    "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}
_LAST_EVENT_ID: Final = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "Of a stream: the last event that was seen; it goes on behind it. It counts before `cursor`.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
}
_EVENT_STREAM: Final = {
    "text/event-stream": {
        "schema": {"type": "string"},
        "example": 'id: 1016\nevent: accepted\ndata: {"intent_id": "…", "seq": 1}\n\n',
    }
}
_RETRY_AFTER: Final = {
    "Retry-After": {"description": "Seconds to wait, where waiting helps", "schema": {"type": "integer"}}
}
_REPLAYED: Final = {
    "Idempotent-Replayed": {"description": "`true` where the key was answered before", "schema": {"type": "string"}}
}
_SIGNED: Final = (KEY_HEADER, TIMESTAMP_HEADER, NONCE_HEADER, SIGNATURE_HEADER)
_Handler = TypeVar("_Handler", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Told:
    """What a handler reads and answers beside its body: a query, 200 for a repeat, a key, other media of a 200."""

    query: type[BaseModel] | None = None
    repeats: bool = False
    idempotency_key: bool = False
    media: tuple[str, ...] = ()
    bare: bool = False
    """Whether those media are all there is: no JSON."""
    streams: bool = False
    """Whether `Accept: text/event-stream` gets a stream of events."""
    ends: bool = False
    """Whether 204 tells that nothing will come any more."""
    takes: str = ""
    """The media type of a body that is no JSON, and of any length."""


@dataclass(frozen=True, slots=True)
class Described:
    """One route as the document tells it."""

    method: str
    path: str
    handler: Callable[..., Any]
    answer: type[BaseModel]
    status: int
    body: type[BaseModel] | None

    @property
    def told(self) -> Told:
        """Return what the handler says of itself."""
        told: Told = getattr(self.handler, "told", Told())
        return told


def tells(
    *,
    query: type[BaseModel] | None = None,
    repeats: bool = False,
    idempotency_key: bool = False,
    media: tuple[str, ...] = (),
    bare: bool = False,
    streams: bool = False,
    ends: bool = False,
    takes: str = "",
) -> Callable[[_Handler], _Handler]:
    """Note beside a handler what it reads and answers, for the document; see `Told`."""

    def mark(handler: _Handler) -> _Handler:
        handler.__dict__["told"] = Told(query, repeats, idempotency_key, media, bare, streams, ends, takes)
        return handler

    return mark


def install_document(app: FastAPI, routes: Sequence[Described]) -> None:
    """Let the app serve the document of these routes; it is written when it is first asked for."""
    document = cache(lambda: openapi_document(app.title, routes))
    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own knows neither bodies nor refusals


def openapi_document(title: str, routes: Sequence[Described]) -> dict[str, Any]:
    """Return the document of one listener. Every route is signed."""
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Problem, "serialization"): None}
    for route in routes:
        wanted[route.answer, "serialization"] = None
        for model in (route.body, route.told.query):
            if model is not None:
                wanted[model, "validation"] = None
    found, definitions = models_json_schema(list(wanted), ref_template="#/components/schemas/{model}")
    components: dict[str, Any] = definitions.get("$defs", {})
    queries = {
        model: components.pop(_name(found[model, "validation"]))
        for model in {route.told.query for route in routes}
        if model is not None
    }
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, found, queries)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1", "description": "Requests are signed: see docs/signing.md."},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {name: {"type": "apiKey", "in": "header", "name": name} for name in _SIGNED},
        },
        "security": [{name: [] for name in _SIGNED}],
    }


def _operation(route: Described, found: Any, queries: dict[type[BaseModel], Any]) -> dict[str, Any]:
    name = getattr(route.handler, "__name__", "")
    told: dict[str, Any] = {
        "operationId": f"{name}_{route.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_')}",
        "summary": (route.handler.__doc__ or name).strip().splitlines()[0],
        "parameters": list(_parameters(route, queries)),
        "responses": _responses(route, found),
    }
    if route.body is not None:
        schema = found[route.body, "validation"]
        told["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    elif route.told.takes:
        content = {route.told.takes: {"schema": {"type": "string", "format": "binary"}}}
        told["requestBody"] = {"required": True, "content": content}
    return told


def _parameters(route: Described, queries: dict[type[BaseModel], Any]) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", route.path):
        schema = {"type": "string"} | ({"format": "uuid"} if name.endswith("_id") else {})
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    if route.told.query is not None:
        asked = queries[route.told.query]
        for name, schema in asked["properties"].items():
            divided = {"explode": False} if schema.get("type") == "array" else {}  # by commas: a name stands once
            needed = name in asked.get("required", ())
            yield {"name": name, "in": "query", "required": needed, "schema": schema} | divided
    if route.told.idempotency_key:
        yield _KEY
    if route.told.takes:
        yield _BODY_DIGEST
    if route.told.streams:
        yield _LAST_EVENT_ID
    if route.path.startswith("/v1/"):
        yield _ON_BEHALF_OF


def _responses(route: Described, found: Any) -> dict[str, Any]:
    answer = {} if route.told.bare else {_JSON: {"schema": found[route.answer, "serialization"]}}
    answer |= {media: {"schema": {"type": "string"}} for media in route.told.media}
    answer |= _EVENT_STREAM if route.told.streams else {}
    problem = {"application/problem+json": {"schema": found[Problem, "serialization"]}}
    refused = _REFUSED | (_REFUSED_BODY if route.method != "GET" else {})
    told: dict[str, Any] = {str(route.status): {"description": "Done", "content": answer}}
    if route.told.repeats:
        told["200"] = {"description": "It was so already", "content": answer}
    if route.told.idempotency_key:
        told[str(route.status)]["headers"] = _REPLAYED
    if route.told.ends:
        told["204"] = {"description": "The intent has ended, and its last event was seen: come no more"}
    told |= {
        str(status): {"description": f"{text}: `code` says why (docs/errors.md)", "content": problem}
        for status, text in sorted(refused.items())
    }
    for status in {"409", "503"} & told.keys():
        told[status]["headers"] = _RETRY_AFTER
    return told


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
