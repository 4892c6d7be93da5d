"""Statements that took too long, told without their values: what they do, to which tables, and a fingerprint."""

import hashlib
import logging
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from core.telemetry.catalogue import SLOW_QUERIES

if TYPE_CHECKING:
    from asyncpg.connection import LoggedQuery

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


def tell_slow_queries(pool: str, threshold_s: float) -> Callable[["LoggedQuery"], Any]:
    """Return what a connection calls after each statement."""

    def look(done: "LoggedQuery") -> None:
        if done.elapsed >= threshold_s:
            SLOW_QUERIES.labels(pool).inc()
            log.warning("slow statement: %s took %d ms", name_of(done.query), done.elapsed * 1000)

    return look
