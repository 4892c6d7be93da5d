"""python -m core [all|api|console|relay|settler|resolver …]: run roles of the core under one supervisor.

A role that ends by itself or raises ends the process with a message, so that whoever started it sees it.
"""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import asyncpg
import uvloop

from core.bootstrap import PASSING_FAULTS, Core, background, open_core
from core.bus.roles import BusDeps, relay_role, resolver_role, settler_role
from core.settings import Settings
from wire.client import StreamServers
from wire.environment import SettingsError
from wire.health import Health
from wire.logs import log_json_lines
from wire.memory import settle_memory
from wire.pulse import watch_event_loop
from wire.tracing import start_tracing

_Role = Callable[[Core, asyncio.Event], Coroutine[Any, Any, None]]

_BACKGROUND: Final = {"relay": relay_role, "settler": settler_role, "resolver": resolver_role}
_LISTENING: Final = ("api", "console")
_ROLES: Final = (*_LISTENING, *_BACKGROUND)
_ALL: Final = tuple(role for role in _ROLES if role != "console")
"""The console is a process of its own: what people do there takes nothing from payments."""


def _name_of(roles: tuple[str, ...]) -> str:
    """Return what logs and traces call the process: all that works by itself together is the worker."""
    return "core-worker" if roles == tuple(_BACKGROUND) else "core-" + "-".join(roles)


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m core", description=__doc__)
    parser.add_argument("roles", nargs="*", metavar="role", help=f"{', '.join(_ROLES)}; default: all but the console")
    asked = parser.parse_args(arguments).roles or ["all"]
    if unknown := sorted(set(asked) - {"all", *_ROLES}):
        parser.error(f"unknown role {', '.join(unknown)}: use all, {', '.join(_ROLES)}")
    roles = tuple(role for role in _ROLES if role in asked or ("all" in asked and role in _ALL))
    log_json_lines(_name_of(roles))
    try:
        settings = Settings()
    except SettingsError as error:
        sys.stderr.write(f"core: {error}\n")
        return 2
    settle_memory()
    return uvloop.run(_run(settings, {role: _role(role) for role in roles}))


async def _run(settings: Settings, roles: Mapping[str, _Role]) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, start_tracing(_name_of(tuple(roles))))
        try:
            core = await stack.enter_async_context(open_core(settings))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as kept_out:
            why = " ".join(str(kept_out).split())
            sys.stderr.write(f"core: PostgreSQL does not let us in: {type(kept_out).__name__}: {why}\n")
            return 1
        await stack.enter_async_context(_health(core))
        tasks = {asyncio.create_task(run(core, stopping), name=name) for name, run in roles.items()}
        waiting, watching = asyncio.create_task(stopping.wait()), asyncio.create_task(watch_event_loop())
        await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
        crashed = [task for task in tasks if task.done() and not stopping.is_set()]
        stopping.set()
        _, late = await asyncio.wait(tasks, timeout=settings.drain_s)
        for task in (*late, waiting, watching):
            task.cancel()
        await asyncio.gather(*tasks, waiting, watching, return_exceptions=True)
        for task in crashed:
            error = task.exception()
            logging.getLogger("core").critical("role %s ended: %s", task.get_name(), error or "it returned")
    return 1 if crashed else 0


@asynccontextmanager
async def _health(core: Core) -> AsyncIterator[None]:
    """Listen on the port of a process without the API, where the settings name one."""
    own, health = core.settings, Health(partial(_missing, core))
    if own.metrics_port:
        await health.start(own.host, own.metrics_port)
    try:
        yield
    finally:
        await health.stop()


async def _missing(core: Core) -> str:
    try:
        return "migrations_missing" if await core.missing_migrations() else ""
    except PASSING_FAULTS:
        return "database_away"


def _role(name: str) -> _Role:
    # What listens brings a web framework along, which the processes behind it start without.
    if name == "api":
        from core.api.serve import serve_api

        return serve_api
    if name == "console":
        from core.console.serve import serve_console

        return serve_console
    return partial(_in_background, _BACKGROUND[name])


async def _in_background(
    role: Callable[[BusDeps], Coroutine[Any, Any, None]], core: Core, stopping: asyncio.Event
) -> None:
    """Run a background role until told to stop; a role that ends before that raises or returns."""
    servers = StreamServers(core.settings.redis_url.get_secret_value(), "core")
    working, waiting = asyncio.create_task(role(background(core, servers))), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
        await servers.aclose()


if __name__ == "__main__":
    sys.exit(main())
