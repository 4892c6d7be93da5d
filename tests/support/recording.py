"""Records the statements that a release runs, to be prepared against the schemas of later ones.

    pytest -p tests.support.recording tests/integration

A pytest plugin: what the chosen tests make the core ask of PostgreSQL is added, by role, to tests/vectors.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.store import database

FILE = Path(__file__).parents[1] / "vectors" / "statements.json"
_ROLES = ("fleet_app", "fleet_worker")
_VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")

_seen: dict[str, set[str]] = {role: set() for role in _ROLES}


def _keep(done: Any) -> None:
    # A comment ends with its line.
    query = done.query.strip() if "--" in done.query else " ".join(done.query.split())
    if (
        done.exception is None
        and done.conn_params.user in _seen
        and query.startswith(_VERBS)
        and ";" not in query
        and "fleet." in query
    ):
        _seen[done.conn_params.user].add(query)


def _begin() -> None:
    usual = database._learn_types

    async def begin(connection: Any) -> None:
        await usual(connection)
        connection.add_query_logger(_keep)

    database._learn_types = begin


_begin()


@pytest.fixture(autouse=True)
def recorded() -> Iterator[None]:
    """Write down what was new after each test: a run that is cut short has its worth too."""
    yield
    known: dict[str, list[str]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    told = {role: sorted(set(known.get(role, ())) | _seen[role]) for role in _ROLES}
    if told != known:
        FILE.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
