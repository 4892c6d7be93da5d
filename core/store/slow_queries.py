"""Statements that took too long, told without their values: what they do, to which tables, and a fingerprint."""

import hashlib
import logging
import re
import time
from functools import lru_cache
from typing import Any, Final

import asyncpg

from core.telemetry.catalogue import SLOW_QUERIES

log = logging.getLogger(__name__)

_LITERAL: Final = re.compile(r"'(?:[^']|'')*'|\b\d+\b")
_VERB: Final = re.compile(r"\b(?:SELECT|INSERT|UPDATE|DELETE|COMMIT|ROLLBACK|BEGIN|CALL|LOCK|SET)\b", re.IGNORECASE)
_TABLE: Final = re.compile(r"\bfleet\.(\w+)")
_TABLES_MAX: Final = 4


@lru_cache(maxsize=2000)
def name_of(query: str) -> str:
    """Return the name of a statement, such as `INSERT intents, jobs #3f2a9c01`; literals make no difference."""
    bare = " ".join(_LITERAL.sub("?", query).split())
    verbs = [verb.upper() for verb in _VERB.findall(bare)]
    verb = next((each for each in ("INSERT", "UPDATE", "DELETE") if each in verbs), verbs[0] if verbs else "OTHER")
    tables = list(dict.fromkeys(_TABLE.findall(bare)))[:_TABLES_MAX]
    return f"{verb} {', '.join(tables)}".strip() + f" #{hashlib.sha256(bare.encode()).hexdigest()[:8]}"


def telling_connections(pool: str, threshold_s: float) -> "type[asyncpg.Connection[asyncpg.Record]]":
    """Return the class of a pool's connections, which tells of statements that took longer.

    The driver's own loggers make a record of every statement, and a callback: a lone payment makes twenty.
    """

    def look(query: str, began_s: float) -> None:
        elapsed_s = time.monotonic() - began_s
        if elapsed_s >= threshold_s:
            SLOW_QUERIES.labels(pool).inc()
            log.warning("slow statement: %s took %d ms", name_of(query), elapsed_s * 1000)

    class Telling(asyncpg.Connection):
        __slots__ = ()

        async def execute(self, query: str, *args: Any, **kwargs: Any) -> Any:
            began_s = time.monotonic()
            try:
                return await super().execute(query, *args, **kwargs)
            finally:
                look(query, began_s)

        async def fetch(self, query: str, *args: Any, **kwargs: Any) -> Any:
            began_s = time.monotonic()
            try:
                return await super().fetch(query, *args, **kwargs)
            finally:
                look(query, began_s)

        async def fetchrow(self, query: str, *args: Any, **kwargs: Any) -> Any:
            began_s = time.monotonic()
            try:
                return await super().fetchrow(query, *args, **kwargs)
            finally:
                look(query, began_s)

        async def fetchval(self, query: str, *args: Any, **kwargs: Any) -> Any:
            began_s = time.monotonic()
            try:
                return await super().fetchval(query, *args, **kwargs)
            finally:
                look(query, began_s)

    return Telling
