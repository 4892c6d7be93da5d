"""One open transaction of one tenant, and the writes that wait for its next statement.

A round trip costs a lone payment more than the work it asks for. A write whose answer nobody needs is therefore queued
by `later`, and travels with the next statement, as one WITH. Whatever is asked of `connection` sends it first: no
statement of the transaction ever runs before a write that was queued before it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import asyncpg

from core.domain.context import Context

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

_PARAMETER: Final = re.compile(r"\$(\d+)")


class WriteMissedError(RuntimeError):
    """A queued write met fewer rows than its caller had locked and seen; the transaction must not commit."""


@dataclass(frozen=True, slots=True)
class Write:
    """Changes as the named parts of a WITH: `name AS (INSERT …), …`, with parameters of their own from $1 on.

    Parts of one statement do not see each other's changes, and a row that two of them change is changed once:
    `tables` are those that it changes, and no two writes of one statement share any. `count` is a number that the
    statement reads from its last part: what is read is done before the statement's own expression, see `_statement`.
    """

    parts: str
    tables: frozenset[str]
    count: str


@dataclass(frozen=True, slots=True)
class _Queued:
    write: Write
    arguments: Sequence[Any]
    expected: int | None
    missed: type[Exception]


class _Last(NamedTuple):
    expression: str
    arguments: Sequence[Any]
    refused: type[Exception]


class UnitOfWork:
    """One open transaction. It belongs to one task, and its connection to it until it ends."""

    __slots__ = ("_connection", "_lasts", "_queue", "closing", "context", "trusting")

    def __init__(self, connection: "Connection", context: Context) -> None:
        self._connection, self.context = connection, context
        self._queue: list[_Queued] = []
        self._lasts: list[_Last] = []
        self.closing = ""
        """A statement of values that are written out in it, sent with the COMMIT; see `with_commit`."""
        self.trusting = False
        """Whether limits and ledger may answer that they take what they are not asked about before the end; see
        `at_last`."""

    @property
    def connection(self) -> "Connection":
        """The connection; its next statement comes after everything that was queued."""
        if self.closing:
            raise RuntimeError("what is sent with the commit is the last of its transaction")
        return cast("Connection", _AfterWrites(self, self._connection)) if self._queue else self._connection

    async def later(
        self,
        write: Write,
        *arguments: Any,
        expected: int | None = None,
        missed: type[Exception] = WriteMissedError,
    ) -> None:
        """Queue a write for the next statement, which raises `missed` unless the write's count is `expected`."""
        if any(write.tables & queued.write.tables for queued in self._queue):
            await self.flush()
        self._queue.append(_Queued(write, arguments, expected, missed))

    async def flush(self) -> None:
        """Send what is queued."""
        if self._queue:
            await self.value_after_writes("true")

    async def at_last(self, expression: str, *arguments: Any, refused: type[Exception]) -> None:
        """Let an SQL expression come last, in the statement of what is queued by then, which raises unless it is true.

        Of several the first comes first, all in one statement. For what locks hot rows: it holds them for one statement
        and the commit, and costs no round trip of its own.
        """
        self._lasts.append(_Last(expression, arguments, refused))

    def with_commit(self, function: str, *arguments: str) -> None:
        """Call a function of the database, whose answer nobody needs, in the round trip of the COMMIT.

        The arguments are SQL, as `core.store.literals` writes it. Nothing may be asked of `connection` afterwards.
        """
        self.closing = f"SELECT {function}({', '.join(arguments)})"

    async def finish(self) -> None:
        """Send what is queued, and what comes last. The commit comes next, or what must not come before all that."""
        lasts, self._lasts = self._lasts, []
        if not lasts:
            await self.flush()
            return
        expression = _together(tuple((last.expression, len(last.arguments)) for last in lasts))
        answers = await self.value_after_writes(expression, *(value for last in lasts for value in last.arguments))
        for last, is_true in zip(lasts, answers, strict=True):
            if not is_true:
                raise last.refused("what was to come last was refused")

    async def value_after_writes(self, expression: str, *arguments: Any) -> Any:
        """Return the value of one SQL expression, in the statement that sends what is queued."""
        queue, self._queue = self._queue, []
        text = _statement(expression, len(arguments), tuple((each.write, len(each.arguments)) for each in queue))
        row = await self._connection.fetchrow(text, *arguments, *(value for each in queue for value in each.arguments))
        if row is None:
            raise WriteMissedError("a SELECT of one row returned none")
        for place, each in enumerate(queue):
            if each.expected is not None and row[place] != each.expected:
                raise each.missed(f"{row[place]} of {each.expected} rows changed in {sorted(each.write.tables)}")
        return row[len(queue)]


class _AfterWrites:
    """Stands for the connection while writes are queued: each statement sends them first."""

    __slots__ = ("_connection", "_uow")

    def __init__(self, uow: UnitOfWork, connection: "Connection") -> None:
        self._uow, self._connection = uow, connection

    async def fetch(self, query: str, *arguments: Any) -> Any:
        await self._uow.flush()
        return await self._connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> Any:
        await self._uow.flush()
        return await self._connection.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        await self._uow.flush()
        return await self._connection.fetchval(query, *arguments)

    async def execute(self, query: str, *arguments: Any) -> Any:
        await self._uow.flush()
        return await self._connection.execute(query, *arguments)


@lru_cache(maxsize=1024)
def _statement(expression: str, arguments: int, writes: tuple[tuple[Write, int], ...]) -> str:
    """Return one statement. A select list is evaluated from the left: the expression, which may lock hot accounts until
    the commit, comes when the writes are done; a part that nothing reads would wait for the statement's end.
    """
    parts, counts = [], []
    for write, own in writes:
        shift = arguments
        parts.append(_shifted(write.parts, shift))
        counts.append(f"({write.count})")
        arguments += own
    opening = f"WITH {', '.join(parts)} " if parts else ""
    return f"{opening}SELECT {', '.join([*counts, expression])}"


@lru_cache(maxsize=64)
def _together(expressions: tuple[tuple[str, int], ...]) -> str:
    """Return the array of the expressions' values, evaluated in their order; each has so many parameters of its own."""
    shift, parts = 0, []
    for expression, arguments in expressions:
        parts.append(_shifted(expression, shift))
        shift += arguments
    return f"ARRAY[{', '.join(parts)}]"


def _shifted(text: str, by: int) -> str:
    return _PARAMETER.sub(lambda found: f"${int(found[1]) + by}", text)
