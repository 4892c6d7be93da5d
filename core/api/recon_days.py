"""Registers, comparisons and reports over HTTP, under a key of the system's own that names RECONCILIATION."""

import asyncio
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, Json
from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import Page, parse, path_id, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.api.uploads import uploaded
from core.bootstrap import Core
from core.services.access.keys import RECONCILIATION_SCOPE
from core.services.problems import Refusal
from core.services.recon import register_desk as desk
from core.services.recon.mappings import shipped_mapping
from core.services.recon.recon_report import WRITERS
from schemas.base import Day
from schemas.jobs import RailName
from schemas.recon import BooksAsked, ReconReport
from schemas.recon_report import ReconPeriod, ReportFormat
from schemas.register_mapping import RegisterImport, RegisterMapping
from schemas.registers import (
    DayAsked,
    RegisterFileList,
    RegisterFileShown,
    RegisterReading,
    RegisterRunList,
    RegisterRunView,
    RegistersAsked,
)

IMPORT_BODY_MAX_BYTES: Final = 8 * 1024 * 1024
"""The largest JSON body with a register's file in it; a larger file is the body of `POST /v1/registers:upload`."""
_BYTES: Final = "application/octet-stream"
_MEDIA: Final = {
    ReportFormat.CSV: "text/csv; charset=utf-8",
    ReportFormat.JSON: "application/json",
    ReportFormat.HTML: "text/html; charset=utf-8",
}
# The page has a style of its own and nothing else.
_HTML_HEADERS: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}


class _RegisterQuery(Page):
    rail: RailName | None = None
    day: Day | None = None


class _UploadQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    provider: Annotated[str, Field(max_length=30)] = ""
    """Whose shipped mapping reads the file: bank, ipps or qp. Give this or `mapping`."""
    mapping: Json[RegisterMapping] | None = None
    """A mapping of your own, as JSON."""
    name: Annotated[str, Field(max_length=200)] = ""
    business_day: Day | None = None
    """Needed where the lines speak of several days."""
    apply: bool = False
    """Keep it; without this it is only read."""


class _RunQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    first_day: Day | None = None
    last_day: Day | None = None
    rail: RailName | None = None


class _ReportQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    day: Day | None = None
    week: Annotated[str, Field(max_length=8)] = ""
    format: ReportFormat | None = None
    """Left out, what `Accept` names first of them; else JSON."""


class ReconDayRoutes(SignedRoutes):
    """The routes of registers, runs and reports. A process runs one comparison at a time: each holds a connection."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._comparing = asyncio.Lock()

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        one = "/v1/registers/{register_id}"
        return (
            ("GET", "/v1/registers", self.list_registers, RegisterFileList, 200, None),
            ("POST", "/v1/registers", self.take_file, RegisterReading, 200, RegisterImport),
            ("POST", "/v1/registers:upload", self.upload, RegisterReading, 200, None),
            ("POST", "/v1/registers:fetch", self.fetch, RegistersAsked, 200, DayAsked),
            ("GET", one, self.show_register, RegisterFileShown, 200, None),
            ("POST", f"{one}/original", self.original, RegisterFileShown, 200, None),
            ("GET", "/v1/recon/runs", self.list_runs, RegisterRunList, 200, None),
            ("POST", "/v1/recon/runs", self.compare, RegisterRunList, 200, DayAsked),
            ("GET", "/v1/recon/runs/{run_id}", self.show_run, RegisterRunView, 200, None),
            ("POST", "/v1/recon/books", self.compare_books, ReconReport, 200, BooksAsked),
            ("GET", "/v1/recon/report", self.report, ReconPeriod, 200, None),
        )

    @tells(query=_RegisterQuery)
    async def list_registers(self, request: Request) -> Response:
        """List the registers that came, the newest first."""
        caller, _ = await self._operator(request, RECONCILIATION_SCOPE)
        query = query_of(_RegisterQuery, request)
        return json_answer(await desk.list_registers(self._core.worker_ports, caller, **dict(query)))

    async def take_file(self, request: Request) -> Response:
        """Read a provider's file by its mapping, and keep it where `apply` says so and no line is refused."""
        caller, body = await self._operator(request, RECONCILIATION_SCOPE, IMPORT_BODY_MAX_BYTES)
        asked = parse(RegisterImport, body, request.headers.get("content-type"))
        return json_answer(await desk.take_file(self._core.worker_ports, caller, asked))

    @tells(query=_UploadQuery, takes=_BYTES)
    async def upload(self, request: Request) -> Response:
        """Take a provider's file of any length, which is the body as it came; its SHA-256 is in `Fleet-Body-SHA256`."""
        limit_bytes = self._core.settings.register_file_max_bytes
        async with uploaded(self._core, request, desk.require_everywhere, limit_bytes) as (caller, file):
            query = query_of(_UploadQuery, request)
            if (query.mapping is None) == (query.provider == ""):
                raise Refusal("invalid_request", "give mapping or provider", field="mapping")
            mapping = query.mapping or shipped_mapping(query.provider)
            ports, day = self._core.worker_ports, query.business_day
            return json_answer(await desk.take_upload(ports, caller, mapping, file, query.name, day, apply=query.apply))

    async def fetch(self, request: Request) -> Response:
        """Ask a rail's adapter for a day's register, also where one came before."""
        caller, body = await self._operator(request, RECONCILIATION_SCOPE)
        asked = parse(DayAsked, body, request.headers.get("content-type"))
        count = await desk.want_again(self._core.worker_ports, caller, asked.rail, asked.business_day)
        return json_answer(RegistersAsked(accounts=count))

    async def show_register(self, request: Request) -> Response:
        """Show one register: how many lines of which kind, and how much they are."""
        caller, _ = await self._operator(request, RECONCILIATION_SCOPE)
        return json_answer(await desk.show_register(self._core.worker_ports, caller, path_id(request, "register_id")))

    @tells(media=(_BYTES,), bare=True)
    async def original(self, request: Request) -> Response:
        """Bring an imported file as it came; the journal tells who took it."""
        caller, _ = await self._operator(request, RECONCILIATION_SCOPE)
        register_id = path_id(request, "register_id")
        content = await desk.original_for(self._core.worker_ports, caller, register_id)
        named = {"Content-Disposition": f'attachment; filename="register-{register_id}"'}
        return Response(content, media_type=_BYTES, headers=named)

    @tells(query=_RunQuery)
    async def list_runs(self, request: Request) -> Response:
        """List the newest comparison of each day and account, of the last week where no days are named."""
        caller, _ = await self._operator(request, RECONCILIATION_SCOPE)
        query = query_of(_RunQuery, request)
        return json_answer(
            await desk.list_runs(self._core.worker_ports, caller, query.first_day, query.last_day, query.rail)
        )

    async def compare(self, request: Request) -> Response:
        """Compare a day of a rail now. The answer comes when it is done; who hangs up before finds it in the list."""
        caller, body = await self._operator(request, RECONCILIATION_SCOPE)
        asked = parse(DayAsked, body, request.headers.get("content-type"))
        async with self._comparing:
            runs = await desk.compare_now(self._core.worker_ports, caller, asked.rail, asked.business_day)
        return json_answer(RegisterRunList(items=runs))

    @tells(query=Page)
    async def show_run(self, request: Request) -> Response:
        """Show one comparison, and what it carried over, the oldest first."""
        caller, _ = await self._operator(request, RECONCILIATION_SCOPE)
        query, run_id = query_of(Page, request), path_id(request, "run_id")
        return json_answer(await desk.show_run(self._core.worker_ports, caller, run_id, query.cursor, query.limit))

    async def compare_books(self, request: Request) -> Response:
        """Compare the books with themselves, or with every payment, now. The answer comes when it is done."""
        caller, body = await self._operator(request, RECONCILIATION_SCOPE)
        asked = parse(BooksAsked, body, request.headers.get("content-type"))
        async with self._comparing:
            return json_answer(await desk.compare_books(self._core.worker_ports, caller, asked.what, asked.since))

    @tells(query=_ReportQuery, media=("text/csv", "text/html"))
    async def report(self, request: Request) -> Response:
        """Write the report of a day or an ISO week, today's where none is named, as JSON, CSV or HTML."""
        caller, _ = await self._operator(request, RECONCILIATION_SCOPE)
        query = query_of(_ReportQuery, request)
        chosen = query.format or _accepted(request.headers.get("accept", ""))
        found = await desk.report(self._core.worker_ports, caller, query.day, query.week)
        name = f"reconciliation-{found.first_day}-{found.last_day}.{chosen}"
        headers = {"Content-Disposition": f'inline; filename="{name}"'}
        headers |= _HTML_HEADERS if chosen is ReportFormat.HTML else {}
        return Response(WRITERS[chosen](found), media_type=_MEDIA[chosen], headers=headers)


def _accepted(header: str) -> ReportFormat:
    """Return the first of our formats that a request names."""
    by_media = {media.partition(";")[0]: form for form, media in _MEDIA.items()}
    named = (part.partition(";")[0].strip().lower() for part in header.split(","))
    return next((by_media[each] for each in named if each in by_media), ReportFormat.JSON)
