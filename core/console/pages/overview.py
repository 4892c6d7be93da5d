"""The first page: is money safe, is work stuck."""

from core.console.visit import Answer, Page, Screen, Visit
from core.domain.roles import Role
from core.services.on_call.overview import read_overview


async def overview(visit: Visit) -> Answer:
    """Show what must be zero, and what waits."""
    figures = await read_overview(visit.core.worker_ports, visit.caller)
    streams = None
    if visit.person.everywhere and visit.streams is not None:
        try:
            streams = await visit.streams.look()
        except OSError:
            streams = None
    unsafe = [
        figure
        for name in ("imbalance", "unresolved", "dead_results", "breaks")
        for figure in figures.get(name, [])
        if figure.count
    ]
    return Page("overview.html", {"figures": figures, "streams": streams, "unsafe": unsafe})


SCREENS = (Screen("GET", "/", overview, Role.VIEWER),)
