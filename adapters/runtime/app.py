"""The main program of every adapter: check, register, work, and leave nothing behind on SIGTERM."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import uvloop

from adapters.runtime.callbacks import CallbackReceiver, CallbackSettings
from adapters.runtime.core_client import CoreClient, CoreRefusedError, register_until_answered
from adapters.runtime.cut_off import tell_cut_off
from adapters.runtime.port import KeepsRegisters, Rail, ReceivesCallbacks, Watches
from adapters.runtime.registers import follow_registers
from adapters.runtime.settings import RuntimeSettings, networks_of
from adapters.runtime.timing import TimingRefusedError
from adapters.runtime.waits import tell_waits
from adapters.runtime.watching import CoreListener
from adapters.runtime.worker import Worker, WorkerSettings
from wire.client import StreamServers
from wire.environment import SettingsError
from wire.health import Health
from wire.logs import log_json_lines
from wire.memory import settle_memory
from wire.pulse import watch_event_loop
from wire.tracing import start_tracing

log = logging.getLogger(__name__)

EXIT_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h: restarting will not help until a person has changed a setting."""


def run(make_rail: Callable[[RuntimeSettings], Rail]) -> None:
    """Run a rail until SIGTERM or SIGINT. Exits with 78 and one line where the configuration is refused."""
    try:
        settings = RuntimeSettings()
        log_json_lines(settings.consumer_name)
        settle_memory()
        if not uvloop.run(serve(make_rail, settings)):
            raise SystemExit(1)
    except (TimingRefusedError, CoreRefusedError, SettingsError) as error:
        _refuse(str(error))


async def serve(make_rail: Callable[[RuntimeSettings], Rail], settings: RuntimeSettings) -> bool:
    """Register and work until told to stop; False where a part of it ended by itself and left its work undone.

    Raises TimingRefusedError, CoreRefusedError.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, start_tracing(settings.consumer_name))
        rail = make_rail(settings)
        stack.push_async_callback(rail.close)
        core = CoreClient(
            settings.core_internal_url,
            key_id=settings.core_key_id,
            secret=settings.core_key_secret.get_secret_value(),
        )
        stack.push_async_callback(core.close)
        servers = StreamServers(settings.redis_url.get_secret_value(), settings.consumer_name)
        stack.push_async_callback(servers.aclose)
        worker = Worker(rail, servers, core, core, _worker_settings(settings, core))
        working = False

        async def missing() -> str:
            return "" if working and worker.ready else "not_registered"

        watching = asyncio.create_task(watch_event_loop())
        stack.callback(watching.cancel)
        health = Health(missing)
        if settings.health_port:
            await health.start(settings.health_host, settings.health_port)
            stack.push_async_callback(health.stop)
        name = rail.registration().rail
        telling = asyncio.create_task(tell_cut_off(core, servers, name, settings.consumer_name), name="cut off")
        stack.callback(telling.cancel)
        if not await register_until_answered(core, rail.registration(), stop):
            return True
        if settings.callback_port and isinstance(rail, ReceivesCallbacks):
            receiver = CallbackReceiver(rail, core, _callback_settings(settings, name))
            await receiver.start(settings.callback_host, settings.callback_port)
            stack.push_async_callback(receiver.stop)
        beside: dict[str, Coroutine[Any, Any, None]] = {
            "waits": tell_waits(core, name, lambda: worker.jobs.guard.open_operations)
        }
        if isinstance(rail, Watches):
            beside["watch"] = rail.watch(CoreListener(core, servers))
        if isinstance(rail, KeepsRegisters):
            beside["registers"] = follow_registers(core, rail, settings.registers_every_s)
        tasks = [asyncio.create_task(work, name=title) for title, work in beside.items()]
        for task in tasks:
            stack.callback(task.cancel)
        tasks += [telling, *worker.start()]
        working = True
        log.info("%s works as %s", name, settings.consumer_name)
        well = await all_live(tasks, stop)
        working = False
        await worker.drain(settings.drain_s)
        log.info("drained")
    return well


async def all_live(tasks: Sequence[asyncio.Task[None]], stop: asyncio.Event) -> bool:
    """Wait for `stop`, and return True; or until a task ends by itself, which is told of, and return False.

    A process that goes on without it looks well, and its work is done by nobody: started anew, it is.
    """
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in done - {stopping}:
        log.critical("%s ended by itself", task.get_name(), exc_info=task.exception())
    return stopping in done


def _worker_settings(settings: RuntimeSettings, core: CoreClient) -> WorkerSettings:
    return WorkerSettings(
        consumer=settings.consumer_name,
        incarnation=core.incarnation,
        batch=settings.batch,
        concurrency=settings.concurrency,
        control_concurrency=settings.control_concurrency,
        evidence_within_s=min(2.0, settings.call_total_s),
        least_concurrency=settings.least_concurrency,
        evidence_waiting_most=settings.evidence_waiting_most,
        breaker=settings.breaker(),
        rate=settings.rate(),
        parts=settings.parts,
    )


def _callback_settings(settings: RuntimeSettings, rail: str) -> CallbackSettings:
    return CallbackSettings(
        rail,
        max_body_bytes=settings.callback_max_body_bytes,
        window_s=settings.callback_window_s,
        allowed=networks_of(settings.callback_allowed),
        trusted_proxies=networks_of(settings.callback_proxies),
    )


def _refuse(line: str) -> None:
    sys.stderr.write(f"refused: {line}\n")
    raise SystemExit(EXIT_CONFIG)
