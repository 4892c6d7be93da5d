"""How an answer is written: JSON by orjson, refusals as problem details (RFC 9457)."""

import logging
import traceback
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from core.services.problems import Refusal
from schemas.faults import fault_of

_log = logging.getLogger(__name__)
_DISK_FULL = "53100"
_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 503: "unavailable"}
_REMEDIES = {
    404: "no route has this address: /openapi.json of this listener lists them all",
    405: "this address takes another method: the header Allow names it, and /openapi.json of this listener",
}
"""What to do about an address that the framework itself refuses."""
_RETRY_AFTER_S = {
    "idempotency_in_flight": "1",
    "unavailable": "1",
    "storage_full": "30",
    "rail_unavailable": "5",
    "too_many_streams": "5",
}


def json_answer(
    content: BaseModel | dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return a model, or what has a model's shape already, as JSON."""
    body = content.model_dump() if isinstance(content, BaseModel) else content
    # Ids that asyncpg read are of a UUID class of its own, which orjson does not know.
    return Response(orjson.dumps(body, default=str), status, headers, "application/json")


def contracts_answer(content: dict[str, Any]) -> Response:
    """Return contracts as JSON, their fields as they are: pydantic takes several times as long for an answer of many.

    None of their values may need more than JSON has, an id, a time or a word of a closed list.
    """
    return Response(orjson.dumps(content, default=_plain), media_type="application/json")


def _plain(value: Any) -> Any:
    # What is no contract is an id, see above.
    return value.__dict__ if isinstance(value, BaseModel) else str(value)


def problem_answer(refusal: Refusal, instance: str | None = None) -> Response:
    """Return a refusal as application/problem+json, with Retry-After where waiting helps."""
    body = refusal.problem(instance).model_dump(mode="json", exclude_none=True)
    headers = {"Retry-After": _RETRY_AFTER_S[refusal.code]} if refusal.code in _RETRY_AFTER_S else None
    return Response(orjson.dumps(body), refusal.status, headers, "application/problem+json")


def answer_to(error: Exception, path: str, passing: tuple[type[Exception], ...]) -> Response:
    """Return the problem that tells of a failure; `passing` are faults that pass, such as a database that is away."""
    if isinstance(error, Refusal):
        return problem_answer(error, path)
    if isinstance(error, HTTPException):
        code = _BY_STATUS.get(error.status_code, "invalid_request")
        answer = problem_answer(Refusal(code, _REMEDIES.get(error.status_code, str(error.detail))), path)
        answer.headers.update({name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"})
        return answer
    if isinstance(error, RequestValidationError):
        # Bodies and queries are parsed by hand: what the framework reads is what stands in the path.
        fault = fault_of(error.errors()[0])
        name = fault.field.rpartition(".")[2]
        return problem_answer(Refusal("invalid_request", f"{name}: {fault.words}", field=name), path)
    if isinstance(error, passing):
        _log.warning("a request found the database away: %s", type(error).__name__)
        return problem_answer(fault_refusal(error), path)
    # The text of an error may quote a payee: its class and the places it passed are logged, never the text.
    places = " <- ".join(f"{f.filename}:{f.lineno}" for f in reversed(traceback.extract_tb(error.__traceback__)[-8:]))
    _log.error("a request failed: %s at %s", type(error).__name__, places)
    return problem_answer(Refusal("internal", "repeat the request under the same key"), path)


def fault_refusal(fault: Exception) -> Refusal:
    """Return what a fault that passes is called: a full disk passes only once somebody has made room."""
    if getattr(fault, "sqlstate", None) == _DISK_FULL:
        return Refusal("storage_full", "nothing was done: repeat the request under the same key once there is room")
    return Refusal("unavailable", "repeat the request under the same key")


def install_problems(app: FastAPI, passing: tuple[type[Exception], ...]) -> None:
    """Answer every failure of the app with problem details."""

    async def answer(request: Request, error: Exception) -> Response:
        return answer_to(error, request.url.path, passing)

    for kind in (Refusal, HTTPException, RequestValidationError, *passing, Exception):
        app.add_exception_handler(kind, answer)
