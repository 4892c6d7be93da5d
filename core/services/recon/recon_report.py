"""Daily and weekly reports of reconciliation, as JSON, CSV and HTML that prints well."""

import csv
import html
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, Protocol

import orjson

from core.services.problems import Refusal
from core.services.recon.registers import Registers
from schemas.recon import BreakView
from schemas.recon_report import ReconPeriod, ReportFormat
from schemas.registers import RegisterRun

BREAKS_MAX: Final = 10_000
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS: Final = (
    "record", "id", "rail", "provider_account", "business_day", "side", "class", "currency", "count", "amount_minor",
    "state", "owner", "age_s", "first_seen_at", "ended_at", "reference", "intent_id", "reason", "detail",
)  # fmt: skip
_STYLE: Final = (
    "body{font:10pt sans-serif;margin:2em}table{border-collapse:collapse;width:100%;margin:0 0 2em}"
    "td,th{border:1px solid #999;padding:2pt 4pt;text-align:left;vertical-align:top}td.n{text-align:right}"
    "thead{display:table-header-group}tr{break-inside:avoid}@media print{body{margin:0}}"
)


class ReportedBreaks(Protocol):
    """Where breaks are read by time."""

    async def between(self, uow: Any, begin: datetime, end: datetime, limit: int) -> list[BreakView]: ...


async def report_of(
    uow: Any, registers: Registers, breaks: ReportedBreaks, first: date, last: date, now: datetime
) -> ReconPeriod:
    """Return the report of whole days. Raises Refusal `invalid_request` for more than a month or none."""
    if not 0 <= (last - first).days < 31:
        raise Refusal("invalid_request", "a report is of 1 to 31 days", field="last_day")
    begin, end = (datetime.combine(day, time(), UTC) for day in (first, last + timedelta(days=1)))
    found = await breaks.between(uow, begin, end, BREAKS_MAX + 1)
    return ReconPeriod(
        first_day=first,
        last_day=last,
        written_at=now,
        runs=await registers.runs(uow, first, last, None),
        breaks=found[:BREAKS_MAX],
        more_breaks=len(found) > BREAKS_MAX,
    )


def week_days(week: str) -> tuple[date, date]:
    """Return Monday and Sunday of an ISO week such as 2026-W47. Raises ValueError."""
    year, separator, number = week.partition("-W")
    if not separator:
        raise ValueError(f"{week!r} is no ISO week: write it like 2026-W47")
    monday = date.fromisocalendar(int(year), int(number), 1)
    return monday, monday + timedelta(days=6)


def as_json(report: ReconPeriod) -> str:
    """Return the report as one JSON document."""
    return orjson.dumps(report.model_dump(mode="json"), option=orjson.OPT_INDENT_2).decode() + "\n"


def as_csv(report: ReconPeriod) -> str:
    """Return one table: a record for each tally of a run, then one for each break."""
    written = io.StringIO()
    writer = csv.DictWriter(written, _COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for run in report.runs:
        about = run.model_dump(mode="json", include={"id", "rail", "provider_account", "business_day"})
        writer.writerow(about | {"record": "run", "state": run.register_state, "count": run.breaks})
        for tally in run.tallies:
            counted = tally.model_dump(mode="json") | {"class": tally.match.value}
            writer.writerow(_plain(about | counted | {"record": "tally"}))
    for each in report.breaks:
        writer.writerow(_plain(each.model_dump(mode="json") | {"record": "break", "class": each.kind}))
    return written.getvalue()


def as_html(report: ReconPeriod) -> str:
    """Return a page that prints well."""
    days = f"{report.first_day}" if report.first_day == report.last_day else f"{report.first_day} to {report.last_day}"
    title = html.escape(f"Reconciliation, {days}")
    open_minor = sorted({each.currency for each in report.breaks if each.currency})
    stakes = ", ".join(f"{_at_stake(report.breaks, currency)} {currency}" for currency in open_minor) or "nothing"
    more = f" (the first {BREAKS_MAX:,} are listed)" if report.more_breaks else ""
    runs = _table(
        ("rail", "account", "day", "register", "side", "class", "currency", "count", "minor units"),
        [row for run in report.runs for row in _run_rows(run)],
    )
    breaks = _table(
        ("kind", "rail", "day", "amount", "currency", "state", "owner", "since", "ended", "reference", "detail", "why"),
        [
            (
                x.kind, x.rail, x.business_day, x.amount_minor, x.currency, x.state, x.owner, _moment(x.first_seen_at),
                _moment(x.ended_at), x.reference, x.detail, x.reason,
            )
            for x in report.breaks
        ],
    )  # fmt: skip
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        f"<p>Written {_moment(report.written_at)} UTC. {len(report.runs)} comparisons; {report.open_breaks} breaks "
        f"open and {len(report.breaks) - report.open_breaks} ended; at stake: {html.escape(stakes)} (minor units)."
        f"{more}</p>\n"
        f"<h2>What was compared</h2>\n{runs}\n<h2>What did not fit</h2>\n{breaks}\n</body></html>\n"
    )


WRITERS: Final[Mapping[ReportFormat, Callable[[ReconPeriod], str]]] = {
    ReportFormat.CSV: as_csv,
    ReportFormat.JSON: as_json,
    ReportFormat.HTML: as_html,
}


def _at_stake(breaks: Sequence[BreakView], currency: str) -> int:
    return sum(each.amount_minor for each in breaks if each.ended_at is None and each.currency == currency)


def _run_rows(run: RegisterRun) -> list[tuple[object, ...]]:
    about = (run.rail, run.provider_account, run.business_day, run.register_state)
    told: list[tuple[object, ...]] = [
        (*about, x.side, x.match, x.currency, x.count, x.amount_minor) for x in run.tallies
    ]
    return told or [(*about, "", "", "", 0, 0)]


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in columns)
    body = "\n".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _cell(value: object) -> str:
    text = html.escape("" if value is None else str(value))
    return f'<td class="n">{text}</td>' if isinstance(value, int) else f"<td>{text}</td>"


def _moment(at: datetime | None) -> str:
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A cell that a spreadsheet would run as a formula is kept as text."""
    return {
        name: f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
        for name, value in row.items()
    }
