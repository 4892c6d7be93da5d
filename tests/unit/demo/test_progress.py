"""A demo whose output goes into a file tells how far it is all the same."""

import asyncio
import io

from rich.console import Console

from fleet.demo.progress import lines_of_progress


async def test_a_line_is_printed_now_and_then_where_no_bar_moves() -> None:
    out, asked = io.StringIO(), asyncio.Event()

    def tell() -> str:
        if "7 of 9" in out.getvalue():
            asked.set()
        return "7 of 9 [accepted] payments"

    async with lines_of_progress(Console(file=out, width=160), tell, every_s=0.01), asyncio.timeout(10):
        await asked.wait()
    assert "s: 7 of 9 [accepted] payments\n" in out.getvalue()


async def test_a_terminal_has_its_bar_and_no_such_lines() -> None:
    out = io.StringIO()
    async with lines_of_progress(Console(file=out, force_terminal=True), lambda: "never", every_s=0):
        await asyncio.sleep(0.05)
    assert out.getvalue() == ""
