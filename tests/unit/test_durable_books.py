"""The simulated providers' books: one fault costs what met it, never all that comes after."""

import sqlite3
from pathlib import Path

import pytest

from adapters.testkit.durable import DurableStore, read_rows

_NO_ROOM = "PRAGMA max_page_count = 1"
_ROOM = "PRAGMA max_page_count = 100000"


def _write(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO paid VALUES (zeroblob(100000))")


async def test_a_book_whose_disk_was_full_is_written_again_once_there_is_room(tmp_path: Path) -> None:
    book = tmp_path / "book.sqlite"
    store = DurableStore(book, "CREATE TABLE paid (body)")
    store.start()
    try:
        await store.run(lambda connection: connection.execute(_NO_ROOM).fetchall())
        with pytest.raises(sqlite3.Error):
            await store.run(_write)
        await store.run(lambda connection: connection.execute(_ROOM).fetchall())
        await store.run(_write)
    finally:
        store.stop()
    assert read_rows(book, "SELECT count(*) FROM paid") == [(1,)]


async def test_a_book_that_cannot_be_committed_tells_everyone_and_goes_on(tmp_path: Path) -> None:
    schema = """PRAGMA foreign_keys = ON;
    CREATE TABLE paid (reference PRIMARY KEY);
    CREATE TABLE told (reference REFERENCES paid DEFERRABLE INITIALLY DEFERRED)"""
    book = tmp_path / "book.sqlite"
    store = DurableStore(book, schema)
    store.start()
    try:
        with pytest.raises(sqlite3.IntegrityError):
            await store.run(lambda connection: connection.execute("INSERT INTO told VALUES ('a')").rowcount)
        await store.run(lambda connection: connection.execute("INSERT INTO paid VALUES ('b')").rowcount)
    finally:
        store.stop()
    assert read_rows(book, "SELECT (SELECT count(*) FROM told), (SELECT count(*) FROM paid)") == [(0, 1)]
