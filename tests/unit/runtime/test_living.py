"""A part of an adapter that ends by itself ends the process: it must not look well while its work is done by nobody."""

import asyncio
import logging

import pytest

from adapters.runtime.app import all_live


async def _breaks() -> None:
    raise KeyError("nobody foresaw this")


async def _goes_on() -> None:
    await asyncio.Event().wait()


async def test_a_task_that_ends_by_itself_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    going, broken = asyncio.create_task(_goes_on()), asyncio.create_task(_breaks(), name="watch")
    with caplog.at_level(logging.CRITICAL):
        assert not await all_live([going, broken], asyncio.Event())
    going.cancel()
    assert "watch ended by itself" in caplog.text
    assert "nobody foresaw this" in caplog.text


async def test_a_stop_leaves_the_tasks_to_the_drain() -> None:
    going, stop = asyncio.create_task(_goes_on()), asyncio.Event()
    stop.set()
    assert await all_live([going], stop)
    assert not going.done()
    going.cancel()
