"""Streams between the core and the adapters: what waits, who holds what, and what is done where they stand still."""

from dataclasses import dataclass
from itertools import groupby
from typing import Final

from core.console.visit import Answer, Page, Redirect, Screen, Visit
from core.domain.roles import Role
from core.services.on_call.stream_repair import STUCK_S, HeldEntry, RepairedStreams, note, reached, streams_of
from core.services.problems import Refusal

_SHOWN: Final = 200
"""Rows of a long list; the counts above it tell of all."""
_NAME_LONGEST: Final = 128


@dataclass(frozen=True, slots=True)
class Holder:
    """What one consumer holds of one stream."""

    stream: str
    consumer: str
    entries: int
    oldest_s: float
    deliveries: int

    @property
    def stuck(self) -> bool:
        """Whether it holds something that it has not touched for long."""
        return self.oldest_s > STUCK_S


async def list_streams(visit: Visit) -> Answer:
    """Show every stream's length, lag, pending entries and the oldest of them."""
    streams = visit.streams
    lines = [] if streams is None else await reached(streams.look())
    return Page("streams.html", {"lines": lines, "rails": [] if streams is None else streams.rails})


async def show_rail(visit: Visit) -> Answer:
    """Show one rail's streams and who holds what; below it, what may be done."""
    streams, rail = _streams(visit), _rail(visit)
    held = await reached(streams.held(rail))
    lines = await reached(streams.look())
    async with visit.background() as uow:
        state = await visit.core.worker_ports.rails.rail_state(uow, rail)
    values = {
        "rail": rail,
        "lines": [line for line in lines if _is_of(line.stream, rail)],
        "holders": _holders(held),
        "consumers": sorted({entry.consumer for entry in held}),
        "state": state,
    }
    return Page("stream_rail.html", values)


async def show_held(visit: Visit) -> Answer:
    """Show what of a consumer would be given back or handed over: nothing is changed."""
    streams, rail = _streams(visit), _rail(visit)
    consumer, idle_s = _consumer(visit, "consumer"), _idle_s(visit)
    held = [x for x in await reached(streams.held(rail, consumer)) if x.idle_s >= idle_s]
    values = {"rail": rail, "consumer": consumer, "idle_s": idle_s, "count": len(held), "held": held[:_SHOWN]}
    return Page("stream_held.html", values)


async def compare(visit: Visit) -> Answer:
    """Compare a rail's streams with PostgreSQL: which jobs have no entry, which entries serve no job."""
    diff = await reached(_streams(visit).compare(_rail(visit)))
    return Page("stream_diff.html", {"rail": diff.rail, "diff": diff, "shown": _SHOWN})


async def release(visit: Visit) -> Answer:
    """Give back what a stuck consumer holds."""
    streams, rail = _streams(visit), _rail(visit)
    consumer, idle_s = _consumer(visit, "consumer"), _idle_s(visit)
    await _note(visit, "stream_release", rail, consumer=consumer, idle_s=idle_s)
    await reached(streams.release(rail, consumer, idle_s))
    return Redirect(f"/streams/{rail}", "released")


async def claim(visit: Visit) -> Answer:
    """Hand what a consumer holds to another by name."""
    streams, rail = _streams(visit), _rail(visit)
    consumer, to, idle_s = _consumer(visit, "consumer"), _consumer(visit, "to"), _idle_s(visit)
    await _note(visit, "stream_claim", rail, consumer=consumer, to=to, idle_s=idle_s)
    await reached(streams.claim(rail, consumer, to, idle_s))
    return Redirect(f"/streams/{rail}", "claimed")


async def rebuild(visit: Visit) -> Answer:
    """Queue jobs without an entry again, from PostgreSQL."""
    streams, rail = _streams(visit), _rail(visit)
    diff = await reached(streams.compare(rail))
    await _note(visit, "stream_rebuild", rail)
    await reached(streams.queue_again(diff))
    return Redirect(f"/streams/{rail}/diff", "rebuilt")


async def janitor(visit: Visit) -> Answer:
    """Trim what is finished, and drop silent consumers."""
    streams, rail = _streams(visit), _rail(visit)
    await _note(visit, "stream_janitor", rail)
    await reached(streams.tidy(rail))
    return Redirect(f"/streams/{rail}", "tidied")


def _streams(visit: Visit) -> RepairedStreams:
    return streams_of(visit.streams, _rail(visit))


def _rail(visit: Visit) -> str:
    return str(visit.request.path_params["rail"])


def _consumer(visit: Visit, name: str) -> str:
    given = visit.form.get(name, "")
    if not (0 < len(given) <= _NAME_LONGEST and given.isprintable()):
        raise Refusal("invalid_request", "name the consumer as this page shows it", field=name)
    return given


def _idle_s(visit: Visit) -> float:
    given = visit.form.get("idle_s", str(int(STUCK_S)))
    if not (given.isascii() and given.isdigit() and len(given) <= 6):
        raise Refusal("invalid_request", "write whole seconds, such as 60", field="idle_s")
    return float(given)


async def _note(visit: Visit, action: str, rail: str, **data: object) -> None:
    await note(visit.core.worker_ports, visit.caller, action, rail, visit.form.get("reason", ""), **data)


def _holders(held: list[HeldEntry]) -> list[Holder]:
    by = sorted(held, key=lambda entry: (entry.stream, entry.consumer))
    return [
        Holder(
            stream,
            consumer,
            len(entries := list(group)),
            max(entry.idle_s for entry in entries),
            max(entry.deliveries for entry in entries),
        )
        for (stream, consumer), group in groupby(by, key=lambda entry: (entry.stream, entry.consumer))
    ]


def _is_of(stream: str, rail: str) -> bool:
    """Whether a stream is one of the rail's, in whatever part."""
    return stream.startswith((f"{{{rail}}}:", f"{{{rail}."))


SCREENS = (
    Screen("GET", "/streams", list_streams, Role.VIEWER),
    Screen("GET", "/streams/{rail}", show_rail, Role.VIEWER),
    Screen("GET", "/streams/{rail}/held", show_held, Role.VIEWER),
    Screen("GET", "/streams/{rail}/diff", compare, Role.VIEWER),
    Screen("POST", "/streams/{rail}/release", release, Role.OPERATOR),
    Screen("POST", "/streams/{rail}/claim", claim, Role.OPERATOR),
    Screen("POST", "/streams/{rail}/rebuild", rebuild, Role.OPERATOR),
    Screen("POST", "/streams/{rail}/janitor", janitor, Role.OPERATOR),
)
