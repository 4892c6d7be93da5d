"""The background roles, each a coroutine that runs until it is cancelled. Several of each may run at once."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from core.bus.gate import BacklogGate, GateBounds
from core.bus.healer import heal_rail
from core.bus.inbox import Inbox
from core.bus.janitor import drop_idle_consumers, trim_stream
from core.bus.loop import forever
from core.bus.observer import observe_rail, observe_servers
from core.bus.parking import Readder
from core.bus.relay import STALL_HOLDS_S, StreamRelay, relay_step
from core.bus.sweeper import Sweeper
from core.services.settling.bus_ports import EVERY_STREAM, DispatchStore, ParkingStore, Receive, Upkeep
from core.settings import Settings
from core.telemetry.catalogue import BOOKS_PROVEN, begin_at_zero
from schemas.streams import (
    ADAPTERS_GROUP,
    Part,
    control_stream,
    groups_of,
    jobs_dlq_stream,
    jobs_stream,
    results_stream,
    whole_stream,
)
from wire.client import StreamServers

_log = logging.getLogger(__name__)

NONCE_AGE_S = 600
CONSUMER_IDLE_MS = 3_600_000
BLOCKING_AFTER_MS = 600_000
_GATE_REMEMBERED_S = 1.0
_BOOKS_AFTER_S = 600
_OBSERVING_PART = 50
"""An observation that takes a second is followed by this many without one, up to a bound."""
_OBSERVING_RARER = 6
"""At most so many times rarer than the setting says: who is silent for a minute is taken for dead (ObserverSilent)."""


@dataclass(frozen=True, slots=True)
class BusDeps:
    """What the roles need; bootstrap fills it. `listen` names the stream of each wake-up, until cancelled."""

    settings: Settings
    servers: StreamServers
    store: DispatchStore
    upkeep: Upkeep
    parking: ParkingStore
    listen: Callable[[Callable[[str], None]], Awaitable[None]]
    settle: Receive
    receive_dead_letters: Receive
    resolve: Callable[[], Awaitable[None]]
    observe: Callable[[], Awaitable[None]]
    prove: Callable[[], Awaitable[None]]
    reconcile: Callable[[], Awaitable[None]]
    prove_books: Callable[[], Awaitable[None]]
    redrive: Callable[[], Awaitable[int]]
    instance: str
    notify: Callable[[], Awaitable[float]]
    complete: Callable[[], Awaitable[float]]
    purge: Callable[[], Awaitable[object]]


async def relay_role(deps: BusDeps) -> None:
    """Relay every rail's jobs and control stream, and heal the server's groups and functions."""
    own = deps.settings
    bounds = _bounds(deps)
    async with asyncio.TaskGroup() as tasks:
        wakes: dict[str, list[asyncio.Event]] = {}
        for rail, part in own.rail_parts:
            shard = part.shard(rail)
            client = deps.servers.of(shard)
            tasks.create_task(_heal(deps, shard))
            for stream in (jobs_stream(shard), control_stream(shard)):
                wake = asyncio.Event()
                wakes.setdefault(whole_stream(stream), []).append(wake)
                gate = BacklogGate(client, stream, ADAPTERS_GROUP, bounds)
                relay = StreamRelay(deps.store, client, gate, rail, stream, own.relay_batch, part)
                tasks.create_task(_relay(relay, wake, own.relay_poll_s))
        tasks.create_task(_listen(deps, wakes))


async def settler_role(deps: BusDeps) -> None:
    """Consume every rail's results and dead letters; on cancellation the batch in hand is finished."""
    own, inboxes = deps.settings, []
    begin_at_zero(own.rail_names)
    for rail, part in own.rail_parts:
        shard = part.shard(rail)
        client, results, letters = deps.servers.of(shard), results_stream(shard), jobs_dlq_stream(shard)
        name = deps.instance
        reading = partial(Inbox, client, rail, batch=own.results_batch, claim_idle_s=own.results_claim_idle_s)
        relief = reading(results, f"{name}-relief", deps.settle)
        inboxes.append(relief)
        inboxes.append(reading(results, name, deps.settle, relief=relief))
        inboxes.append(reading(letters, name, deps.receive_dead_letters))
    await _prepare(deps)
    for inbox in inboxes:
        inbox.start()
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.gather(*(inbox.stop(own.drain_s) for inbox in inboxes))


async def sign_permits(upkeep: Upkeep) -> None:
    """Say for as long as this runs that adapters are given permits here."""

    async def step() -> float:
        await upkeep.sign_permits(STALL_HOLDS_S)
        return STALL_HOLDS_S / 4

    await forever("the sign of permits", step)


async def resolver_role(deps: BusDeps) -> None:
    """Resolve, complete, send webhooks, heal, sweep, trim, expire, purge and keep partitions ahead.

    The healer runs here too: with every relay away, adapters and settlers still need their groups.
    """
    await _prepare(deps)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(forever("the resolver", lambda: _then(deps.resolve, deps.settings.resolver_every_s)))
        tasks.create_task(forever("redrives", lambda: _then(deps.redrive, deps.settings.resolver_every_s)))
        tasks.create_task(forever("the end of waits", lambda: _end_waits(deps)))
        tasks.create_task(forever("the notifier", deps.notify))
        tasks.create_task(forever("reconciliation", lambda: _then(deps.reconcile, deps.settings.recon_every_s)))
        tasks.create_task(_prove_books(deps))
        tasks.create_task(forever("the completer", deps.complete))
        tasks.create_task(forever("upkeep", lambda: _upkeep(deps)))
        tasks.create_task(forever("the observer", lambda: _observe(deps)))
        tasks.create_task(forever("the balance", lambda: _then(deps.prove, deps.settings.balance_every_s)))
        if deps.settings.purge_every_s:
            tasks.create_task(forever("the purge", lambda: _then(deps.purge, deps.settings.purge_every_s)))
        for rail, part in deps.settings.rail_parts:
            tasks.create_task(_heal(deps, part.shard(rail)))
            tasks.create_task(_sweep(deps, rail, part))
            tasks.create_task(_clean(deps, part.shard(rail)))


async def _prepare(deps: BusDeps) -> None:
    """Put what a new server lacks there before anybody reads; where that fails, the loops tell of it."""
    with contextlib.suppress(Exception):
        for rail, part in deps.settings.rail_parts:
            shard = part.shard(rail)
            await heal_rail(deps.servers.of(shard), deps.store, shard)


def _bounds(deps: BusDeps) -> GateBounds:
    own = deps.settings
    return GateBounds(
        own.backlog_high,
        own.backlog_low,
        own.stream_length_max,
        own.redis_memory_max_bytes,
        _GATE_REMEMBERED_S,
        own.unread_high,
    )


async def _then(step: Callable[[], Awaitable[object]], wait_s: float) -> float:
    await step()
    return wait_s


async def _relay(relay: StreamRelay, wake: asyncio.Event, poll_s: float) -> None:
    await forever("the relay", lambda: relay_step(relay, wake, poll_s))


async def _heal(deps: BusDeps, rail: str) -> None:
    async def step() -> float:
        await heal_rail(deps.servers.of(rail), deps.store, rail)
        return deps.settings.healer_every_s

    await forever(f"the healer of {rail}", step)


async def _listen(deps: BusDeps, wakes: dict[str, list[asyncio.Event]]) -> None:
    def wake(stream: str) -> None:
        for events in wakes.values() if stream == EVERY_STREAM else [wakes.get(stream, [])]:
            for event in events:
                event.set()

    await deps.listen(wake)


async def _sweep(deps: BusDeps, rail: str, part: Part) -> None:
    client = deps.servers.of(part.shard(rail))
    sweeper = Sweeper(client, deps.store, rail, deps.settings.sweeper_age_s, part=part)
    readder = Readder(client, deps.parking, rail, _bounds(deps), part=part)

    async def step() -> float:
        await sweeper.sweep_once()
        await readder.readd_once()
        return deps.settings.sweeper_every_s

    await forever(f"the sweeper of {part.shard(rail)}", step)


async def _clean(deps: BusDeps, rail: str) -> None:
    async def step() -> float:
        for stream, group in groups_of(rail):
            await trim_stream(deps.servers.of(rail), stream, group, BLOCKING_AFTER_MS)
            await drop_idle_consumers(deps.servers.of(rail), stream, group, CONSUMER_IDLE_MS)
        return deps.settings.janitor_every_s

    await forever(f"the janitor of {rail}", step)


async def _observe(deps: BusDeps) -> float:
    began_s = time.monotonic()
    await deps.observe()
    # What waits is counted: the more waits, the longer it takes, and the less often it is done.
    every_s = deps.settings.observe_every_s
    pause_s = max(every_s, min(_OBSERVING_PART * (time.monotonic() - began_s), _OBSERVING_RARER * every_s))
    shards = [part.shard(rail) for rail, part in deps.settings.rail_parts]
    await observe_servers([deps.servers.of(shard) for shard in shards])
    for shard in shards:
        await observe_rail(deps.servers.of(shard), shard)
    return pause_s


async def _prove_books(deps: BusDeps) -> None:
    every_s = deps.settings.books_every_s
    BOOKS_PROVEN.set_to_current_time()
    # A start has other work first, and several resolvers that start together shall not prove together.
    await asyncio.sleep(random.uniform(0.5, 1.0) * min(_BOOKS_AFTER_S, every_s))  # noqa: S311 - jitter

    async def step() -> float:
        try:
            await deps.prove_books()
        except Exception as error:  # noqa: BLE001 - what read for half an hour is not repeated in a second
            _log.warning("the books could not be proven: %s: %s", type(error).__name__, error)
        return every_s

    await forever("the books", step, slow=True)


async def _end_waits(deps: BusDeps) -> float:
    await deps.upkeep.end_waits(STALL_HOLDS_S)
    return deps.settings.resolver_every_s


async def _upkeep(deps: BusDeps) -> float:
    await deps.upkeep.ensure_partitions()
    await deps.upkeep.purge_nonces(NONCE_AGE_S)
    while await deps.upkeep.expire_holds(1000):
        pass
    return deps.settings.janitor_every_s
