"""Fetches the registers that the core wants: the core keeps the cursor, an adapter keeps nothing.

A register comes in parts and counts once it is whole. An adapter that dies in the middle left nothing that counts, and
the next one begins at the first line.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from pydantic import ValidationError

from adapters.runtime import errors
from adapters.runtime.core_client import CoreClient, CoreRefusedError, CoreUnavailableError
from adapters.runtime.port import KeepsRegisters
from schemas.registers import (
    LINES_MAX,
    RegisterAsker,
    RegisterClosed,
    RegisterFile,
    RegisterFileView,
    RegisterLine,
    RegisterLines,
    RegisterOpened,
    RegistersWanted,
    RegisterWanted,
)

log = logging.getLogger(__name__)

_PATH: Final = "/internal/v1/registers"


class RegisterAbsent(Exception):  # noqa: N818 - it is an answer, not a failure
    """The provider has no register of the day."""


Item = TypeVar("Item")
Cursor = TypeVar("Cursor")
Item_co = TypeVar("Item_co", covariant=True)
Cursor_co = TypeVar("Cursor_co", covariant=True)


class RegisterPage(Protocol[Item_co, Cursor_co]):
    """A page of a register as a provider gives it: its lines, and where the next page begins, if there is one."""

    @property
    def items(self) -> Sequence[Item_co]: ...

    @property
    def next(self) -> Cursor_co | None: ...


async def pages(
    ask: Callable[[Cursor], Awaitable[RegisterPage[Item, Cursor] | None]],
    first: Cursor,
    line_of: Callable[[Item], RegisterLine],
) -> AsyncIterator[Sequence[RegisterLine]]:
    """Walk a provider's register from its first page on, as lines that the core compares.

    Raises RegisterAbsent where the provider has none of the day, and what `ask` and `line_of` raise.
    """
    after: Cursor | None = first
    while after is not None:
        page = await ask(after)
        if page is None:
            raise RegisterAbsent
        yield [line_of(item) for item in page.items]
        after = page.next


async def follow_registers(core: CoreClient, rail: KeepsRegisters, every_s: float) -> None:
    """Fetch what is wanted, again and again, until cancelled; what failed is asked for again."""
    asked = RegisterAsker(asker=core.incarnation).model_dump_json().encode()
    while True:
        try:
            for wanted in RegistersWanted.model_validate_json(await core.ask(f"{_PATH}/wanted", asked)).days:
                await _fetch_alone(core, rail, wanted)
        except (CoreUnavailableError, CoreRefusedError) as error:
            log.warning("registers are brought later: %s", error)
        except ValidationError as error:
            log.warning("no list of wanted registers: %d faults", error.error_count())
        await asyncio.sleep(every_s)


async def _fetch_alone(core: CoreClient, rail: KeepsRegisters, wanted: RegisterWanted) -> None:
    """Fetch one register; whatever is wrong with it keeps no other day's waiting. Raises CoreUnavailableError."""
    try:
        view = await fetch_register(core, rail, wanted)
        log.info("the register of %s: %s, %d lines", view.business_day, view.state, view.lines)
    except errors.AdapterError as error:
        log.warning("the register of %s cannot be fetched: %s", wanted.business_day, error)
    except CoreRefusedError as error:
        log.warning("the register of %s is brought later: %s", wanted.business_day, error)
    except CoreUnavailableError:
        raise
    except Exception:
        # What nobody foresaw in one day's lines must not end the fetching of all.
        log.exception("the register of %s cannot be read", wanted.business_day)


async def fetch_register(core: CoreClient, rail: KeepsRegisters, wanted: RegisterWanted) -> RegisterFileView:
    """Fetch one register and bring it; the memory is a page of it.

    Raises the runtime's errors, CoreUnavailableError, CoreRefusedError.
    """
    opened = RegisterOpened(**wanted.model_dump(), name=f"fetched {wanted.business_day}")
    answer = RegisterFile.model_validate_json(await core.ask(_PATH, opened.model_dump_json().encode()))
    path, digest, lines, absent = f"{_PATH}/{answer.file_id}", hashlib.sha256(), 0, False
    try:
        async for page in rail.register(wanted.business_day):
            for at in range(0, len(page), LINES_MAX):
                await _bring(core, path, page[at : at + LINES_MAX])
            for line in page:
                digest.update(line.model_dump_json().encode() + b"\n")
            lines += len(page)
    except RegisterAbsent:
        absent = True
    closed = RegisterClosed(lines=lines, file_hash=digest.hexdigest(), absent=absent)
    return RegisterFileView.model_validate_json(await core.ask(f"{path}/complete", closed.model_dump_json().encode()))


async def _bring(core: CoreClient, path: str, lines: Sequence[RegisterLine]) -> None:
    body = RegisterLines(lines=list(lines)).model_dump_json()
    await core.ask(f"{path}/lines", body.encode())
