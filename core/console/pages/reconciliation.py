"""Reconciliation by business day and rail: what came, what was compared and what it came to, with reports."""

from datetime import UTC, date, datetime
from typing import Final

from core.console.visit import PAGE, Answer, Asset, Page, Redirect, Screen, Visit
from core.domain.roles import Role
from core.services.problems import Refusal
from core.services.recon import register_desk as desk
from core.services.recon.mappings import mapping_in, shipped_mapping, shipped_names
from core.services.recon.recon import list_breaks
from core.services.recon.recon_report import WRITERS
from schemas.recon_report import ReportFormat
from schemas.registers import DayAsked, RegisterState

_MEDIA: Final = {ReportFormat.CSV: "text/csv", ReportFormat.JSON: "application/json", ReportFormat.HTML: "text/html"}

_REFUSED_SHOWN: Final = 100


async def list_days(visit: Visit) -> Answer:
    """List the newest comparison of each day and account, and the registers that came last."""
    ports, rail = visit.core.worker_ports, visit.form.get("rail")
    first, last = _day(visit, "first_day"), _day(visit, "last_day")
    runs = await desk.list_runs(ports, visit.caller, first, last, rail)
    registers = await desk.list_registers(
        ports, visit.caller, rail=rail, day=last if first == last else None, cursor=visit.form.get("cursor"), limit=PAGE
    )
    newest = sorted(runs.items, key=lambda run: (run.business_day, run.rail, run.provider_account), reverse=True)
    values = {"runs": newest, "registers": registers.items, "following": registers.next_cursor, "kept": visit.form}
    values |= {"awaited": registers.awaited, "providers": shipped_names()}
    return Page("reconciliation.html", values | {"formats": list(ReportFormat), "today": datetime.now(UTC).date()})


async def show_day(visit: Visit) -> Answer:
    """Show one comparison: its classes, its registers, its breaks page by page, and what it carried over."""
    ports, state = visit.core.worker_ports, visit.form.get("cursor")
    view = await desk.show_run(ports, visit.caller, visit.path_id("run_id"), visit.form.get("carried"), PAGE)
    run = view.run
    breaks = await list_breaks(
        ports, visit.caller, state=None, rail=run.rail, day=run.business_day, cursor=state, limit=PAGE
    )
    registers = await desk.list_registers(ports, visit.caller, rail=run.rail, day=run.business_day, limit=PAGE)
    values = {"run": run, "carried": view.carried, "carried_on": view.next_cursor, "registers": registers.items}
    more = {"breaks": breaks.items, "following": breaks.next_cursor, "formats": list(ReportFormat)}
    return Page("reconciliation_day.html", values | more)


async def show_register(visit: Visit) -> Answer:
    """Show one register: how many lines of which kind, and how much they are."""
    found = await desk.show_register(visit.core.worker_ports, visit.caller, visit.path_id("register_id"))
    return Page("register.html", {"register": found.register_file, "counts": found.counts})


async def original(visit: Visit) -> Answer:
    """Bring an imported file as it came; the journal tells who took it."""
    register_id = visit.path_id("register_id")
    content = await desk.original_for(visit.core.worker_ports, visit.caller, register_id)
    return Asset(content, "application/octet-stream", f"register-{register_id}")


async def compare(visit: Visit) -> Answer:
    """Compare a day of a rail now, and show what it came to."""
    asked = visit.asked(DayAsked)
    runs = await desk.compare_now(visit.core.worker_ports, visit.caller, asked.rail, asked.business_day)
    return Redirect(f"/reconciliation/runs/{runs[0].id}" if len(runs) == 1 else "/reconciliation", "compared")


async def take_file(visit: Visit) -> Answer:
    """Read a provider's file and tell what is in it, or keep it; a wrong line is told by its number."""
    if visit.upload is None:
        raise Refusal("invalid_request", "choose a file", field="file")
    own, provider = visit.form.get("mapping", ""), visit.form.get("provider", "")
    mapping, day = mapping_in(own) if own else shipped_mapping(provider), _day(visit, "business_day")
    name, file, keep = visit.upload.name[:200], visit.upload.file, "keep" in visit.form
    reading = await desk.take_upload(visit.core.worker_ports, visit.caller, mapping, file, name, day, apply=keep)
    if reading.kept is not None:
        told = "register_waits" if reading.kept.state is RegisterState.SUPERSEDED else "register_kept"
        return Redirect(f"/reconciliation/registers/{reading.kept.id}", told)
    return Page("register_reading.html", {"reading": reading, "name": name, "shown": reading.refused[:_REFUSED_SHOWN]})


async def fetch(visit: Visit) -> Answer:
    """Ask a rail's adapter for a day's register anew."""
    asked = visit.asked(DayAsked)
    await desk.want_again(visit.core.worker_ports, visit.caller, asked.rail, asked.business_day)
    return Redirect("/reconciliation", "wanted")


async def report(visit: Visit) -> Answer:
    """Write the report of a day or of an ISO week."""
    try:
        form = ReportFormat(visit.form.get("format", ReportFormat.HTML))
    except ValueError as error:
        raise Refusal("invalid_request", f"a report is one of {', '.join(ReportFormat)}", field="format") from error
    found = await desk.report(visit.core.worker_ports, visit.caller, _day(visit, "day"), visit.form.get("week", ""))
    name = f"reconciliation-{found.first_day}-{found.last_day}.{form}"
    return Asset(WRITERS[form](found).encode(), f"{_MEDIA[form]}; charset=utf-8", name)


def _day(visit: Visit, name: str) -> date | None:
    text = visit.form.get(name)
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise Refusal("invalid_request", "write a day such as 2026-11-21", field=name) from error


SCREENS = (
    Screen("GET", "/reconciliation", list_days, Role.VIEWER),
    Screen("POST", "/reconciliation", compare, Role.OPERATOR),
    Screen("POST", "/reconciliation/import", take_file, Role.OPERATOR, uploads=True),
    Screen("POST", "/reconciliation/fetch", fetch, Role.OPERATOR),
    Screen("GET", "/reconciliation/report", report, Role.VIEWER),
    Screen("GET", "/reconciliation/runs/{run_id}", show_day, Role.VIEWER),
    Screen("GET", "/reconciliation/registers/{register_id}", show_register, Role.VIEWER),
    Screen("POST", "/reconciliation/registers/{register_id}/original", original, Role.OPERATOR),
)
