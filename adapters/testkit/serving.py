"""What every simulator's HTTP side needs: answers, lost answers, and the control of its fault scripts."""

import argparse
import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adapters.testkit.durable import DurableStore
from adapters.testkit.faults import Fault, FaultScripts, Script
from schemas.faults import first_fault
from wire.environment import read_variable

Model = TypeVar("Model", bound=BaseModel)
Endpoint = Callable[[Request], Awaitable[Response]]

SECRET_VARIABLE: Final = "SIMULATOR_SECRET"  # noqa: S105 - the name of it
"""The variable of a simulator's environment that holds what it shares with its client."""

BEFORE = frozenset({Fault.TIMEOUT_BEFORE, Fault.ERROR_BEFORE, Fault.RESET_BEFORE, Fault.THROTTLED})
"""Faults that strike before anything is executed."""
LOST_AFTER = frozenset({Fault.TIMEOUT_AFTER, Fault.ERROR_AFTER, Fault.GARBAGE_AFTER, Fault.RESET_AFTER})
"""Faults that lose the answer of what was executed."""
_LOSES: Final[Mapping[Fault, Fault]] = {
    Fault.INQUIRY_TIMEOUT: Fault.TIMEOUT_AFTER,
    Fault.INQUIRY_ERROR: Fault.ERROR_AFTER,
    Fault.INQUIRY_GARBAGE: Fault.GARBAGE_AFTER,
    Fault.CANCEL_TIMEOUT: Fault.TIMEOUT_AFTER,
    Fault.CANCEL_ERROR: Fault.ERROR_AFTER,
    Fault.CANCEL_GARBAGE: Fault.GARBAGE_AFTER,
}
"""How the answer to an inquiry or a cancel gets lost."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer to be: status and JSON body."""

    status: int
    body: Any


def respond(answer: Answer) -> Response:
    """Return the HTTP response of an answer."""
    return Response(orjson.dumps(answer.body), answer.status, media_type="application/json")


class AbortableProtocol(HttpToolsProtocol):
    """Hands the transport to the application, so that a fault can reset the connection."""

    def on_message_begin(self) -> None:
        """Begin a request as the base class does, with the transport in its scope."""
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # ASGI scopes are open mappings
        scope["transport"] = self.transport


async def answer_unless(
    fault: Fault | None, request: Request, answer: Answer, lost: Callable[[Fault, Request], Awaitable[Response]]
) -> Response:
    """Answer an inquiry or a cancel that was done, unless a fault loses the answer."""
    return respond(answer) if fault is None else await lost(_LOSES[fault], request)


async def lose(fault: Fault, request: Request, *, delay_s: float, throttled: Answer, broken: Answer) -> Response:
    """Answer as if something broke on the way; a timed-out answer is withheld for `delay_s`."""
    if fault in (Fault.TIMEOUT_BEFORE, Fault.TIMEOUT_AFTER):
        await asyncio.sleep(delay_s)
    if fault in (Fault.RESET_BEFORE, Fault.RESET_AFTER):
        request.scope["transport"].abort()
    if fault is Fault.GARBAGE_AFTER:
        return Response(b'{"status": {"va', media_type="application/json")
    if fault is Fault.THROTTLED:
        response = respond(throttled)
        response.headers["Retry-After"] = "1"
        return response
    return respond(broken)


def faults_endpoint(faults: FaultScripts) -> Endpoint:
    """Return the endpoint that lists the scripts, adds one in front of the others, or clears them all."""

    async def control(request: Request) -> Response:
        scripts = faults.scripts
        if request.method == "DELETE":
            faults.clear()
        elif request.method == "POST":
            try:
                asked = orjson.loads(await request.body())
                scripts.insert(0, Script(**{**asked, "fault": Fault(asked["fault"])}))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                text = f"{error}; faults: {', '.join(Fault)}"
                return respond(Answer(422, {"code": "fault_invalid", "message": text}))
        return respond(Answer(200, {"scripts": [asdict(script) for script in scripts]}))

    return control


def parsed(model: type[Model], document: Any) -> Model | str:
    """Return the request, or what is wrong with it."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        fault = first_fault(error)
        return f"{fault.field}: {fault.words}"


def simulator_arguments(name: str, about: str | None) -> argparse.ArgumentParser:
    """Return the options that every simulator has; its secret is in the environment, never on a command line."""
    parser = argparse.ArgumentParser(prog=f"{name}-simulator", description=about)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--db", type=Path, required=True, help="the durable book (SQLite)")
    parser.add_argument("--seed", type=int, default=0, help="of faults with a probability")
    parser.add_argument("--latency-ms", type=int, default=0)
    parser.add_argument("--timeout-delay-s", type=float, default=30, help="how long a timed-out answer is withheld")
    parser.add_argument("--settle-after-s", type=float, default=1.5, help="of slow payments")
    parser.add_argument("--callback-url", default="")
    parser.add_argument("--callback-delay-s", type=float, default=2)
    return parser


def simulator_secret() -> str:
    """Return what the provider shares with its client: SIMULATOR_SECRET, or its file's, or a well-known one."""
    return read_variable(SECRET_VARIABLE) or "sandbox-secret"


Shown = tuple[str, Callable[[sqlite3.Row], Any]]


def book_endpoint(store: DurableStore, shown: Mapping[str, Shown]) -> Endpoint:
    """Return the endpoint that shows the provider's whole book: under each name a query's rows, written so."""

    async def book(_: Request) -> Response:
        def read(connection: sqlite3.Connection) -> dict[str, list[Any]]:
            return {name: [write(row) for row in connection.execute(query)] for name, (query, write) in shown.items()}

        return respond(Answer(200, await store.run(read)))

    return book


async def health(_: Request) -> Response:
    """Answer that the simulator is up."""
    return respond(Answer(200, {"status": "up"}))


def serve(app: Starlette, host: str, port: int) -> None:
    """Serve until SIGTERM."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=AbortableProtocol,
        log_level="warning",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
