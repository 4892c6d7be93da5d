"""Requests that are drawn from an OpenAPI document, valid and not, about things that exist and that do not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from core.services.problems import PROBLEMS
from wire.signing import ON_BEHALF_OF_HEADER

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
_UNENDING: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Fuzz:
    """Draws requests of every operation of a document, sends them signed, and judges the answers."""

    document: Mapping[str, Any]
    send: Callable[[httpx.Request], httpx.Response]
    """Signs and sends."""
    known: Mapping[str, Any]
    """What exists, by the names that paths and bodies give it."""
    examples: int
    repeatable: bool
    """Draw the same each time."""

    def operations(self) -> Iterator[Any]:
        """Yield every operation of the document; what it says wrongly raises here."""
        generation = GenerationConfig(with_security_parameters=False)
        project = ProjectConfig(generation=generation)
        config = SchemathesisConfig(projects=ProjectsConfig(default=project))
        schema = schemathesis.openapi.from_dict(dict(self.document), config=config)
        for found in schema.get_all_operations():
            assert isinstance(found, Ok), found
            operation = found.ok()
            yield operation

    def try_out(self, operation: Any) -> int:
        """Send what is drawn for one operation; return how many requests were sent. Raises where an answer is wrong."""
        sent = 0
        cases = operation.as_strategy(GenerationMode.POSITIVE)
        if operation.body or operation.query or operation.headers:
            cases = cases | cases | operation.as_strategy(GenerationMode.NEGATIVE)

        @settings(
            max_examples=self.examples,
            deadline=None,
            database=None,
            derandomize=self.repeatable,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(cases, st.lists(st.sampled_from([True, True, False]), min_size=8, max_size=8))
        def run(case: Any, choices: list[bool]) -> None:
            nonlocal sent
            self._name_what_exists(case, iter(choices))
            request = _request_of(case)
            if request is not None:
                if _UNENDING in request.headers.get("accept", ""):
                    # A stream ends with what it tells of: tests of its own read those.
                    request.headers["Accept"] = "application/json"
                answer = self.send(request)
                sent += 1
                case.validate_response(answer, checks=CHECKS)
                _judge(answer)

        run()
        return sent

    def _name_what_exists(self, case: Any, choices: Iterator[bool]) -> None:
        """Put ids of things that exist, half of the time, where the drawn ones name nothing; act mostly for nobody."""
        if case.headers and next(choices, True):
            case.headers.pop(ON_BEHALF_OF_HEADER, None)
        for place in (case.path_parameters, case.body):
            if isinstance(place, dict):
                for name in sorted(place.keys() & self.known.keys()):
                    if next(choices, True):
                        place[name] = self.known[name]


def _request_of(case: Any) -> httpx.Request | None:
    """Return the request as it goes over the wire; None where HTTP itself cannot carry it."""
    told = case.as_transport_kwargs(base_url="http://core")
    told.pop("cookies", None)
    try:
        prepared = requests.Request(**told).prepare()
        headers = [(name, value) for name, value in prepared.headers.items() if name != "Content-Length"]
        body = prepared.body or b""
        assert isinstance(body, str | bytes)
        request = httpx.Request(str(prepared.method), str(prepared.url), headers=_raw(headers), content=body)
    except (requests.RequestException, httpx.InvalidURL, UnicodeError):
        return None
    return None if b"\n" in b"".join(value for _, value in request.headers.raw) else request


def _raw(headers: Sequence[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode(), value if isinstance(value, bytes) else value.encode("latin-1", "replace"))
        for name, value in headers
    ]


def _judge(answer: httpx.Response) -> None:
    """Hold a refusal to what docs/errors.md promises."""
    if answer.status_code < 400:
        return
    problem = answer.json()
    assert PROBLEMS[problem["code"]].status == answer.status_code, problem
    assert problem["detail"], problem
    if problem["code"] == "invalid_request":
        assert problem.get("field") or "body" in problem["detail"], problem
