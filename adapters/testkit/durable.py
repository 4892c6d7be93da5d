"""A provider simulator's durable store: SQLite on a thread of its own, concurrent writes committed together.

An answer leaves only after its commit, as a provider's would: killing the simulator loses nothing that it has said.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_Work = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]
_BATCH = 200


class DurableStore:
    """Runs functions over one connection, in order, several to a transaction."""

    def __init__(self, path: Path, schema: str) -> None:
        self._path, self._schema = path, schema
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="durable-store", daemon=True)

    def start(self) -> None:
        """Open the file, creating its tables where they are missing."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """Commit what is queued and close the file."""
        self._queue.put(None)
        self._thread.join(10)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returns, once it is committed. A failing work undoes itself alone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put((work, future, loop))
        return await future

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(self._schema)
        last = False
        while not last:
            batch, last = self._next_batch()
            if batch:
                _commit(connection, batch)
        connection.close()

    def _next_batch(self) -> tuple[list[_Work], bool]:
        batch: list[_Work] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == _BATCH:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True


def _commit(connection: sqlite3.Connection, batch: list[_Work]) -> None:
    try:
        outcomes = _outcomes(connection, batch)
    except sqlite3.Error as failure:
        # The disk is full, or is none any more: nothing of the batch happened, and the next may find room again.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        outcomes = [(None, failure) for _ in batch]
    for (_, future, loop), (value, error) in zip(batch, outcomes, strict=True):
        loop.call_soon_threadsafe(_settle, future, value, error)


def _outcomes(connection: sqlite3.Connection, batch: list[_Work]) -> list[tuple[Any, Exception | None]]:
    outcomes: list[tuple[Any, Exception | None]] = []
    connection.execute("BEGIN IMMEDIATE")
    for work, _, _ in batch:
        connection.execute("SAVEPOINT item")
        try:
            outcomes.append((work(connection), None))
        except Exception as failure:  # noqa: BLE001 - it is handed to the caller
            connection.execute("ROLLBACK TO item")
            outcomes.append((None, failure))
        connection.execute("RELEASE item")
    connection.execute("COMMIT")
    return outcomes


def _settle(future: "asyncio.Future[Any]", value: object, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


def read_rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Return what a book shows, also while its simulator runs. A missing file is an empty book."""
    if not path.exists():
        return []
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
