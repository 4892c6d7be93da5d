"""`fleet recon run | fetch | import | registers | register | original | show`: what providers say, against ours."""

from collections.abc import Awaitable, Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar, cast
from uuid import UUID

import typer
from pydantic import ValidationError

from core.domain.context import Context
from core.domain.register_files import FileRefusedError
from core.domain.registers import SYSTEM_TENANT
from core.services.access.keys import RECONCILIATION_SCOPE, Caller
from core.services.ledger_port import Ledger
from core.services.problems import Refusal
from core.services.recon import register_desk as desk
from core.services.recon.import_register import read_through
from core.services.recon.mappings import mapping_in, shipped_mapping, shipped_names
from core.services.recon.registers import RegisterPace
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from core.store.on_call.audit import AuditStore
from core.store.payments.intents import IntentStore
from core.store.recon.recon import ReconStore
from core.store.recon.register_matching import RegisterMatching
from core.store.recon.registers import RegisterStore
from core.store.settling import rails
from core.store.vault import PostgresVault
from fleet.cli.connection import Connection, by_api, with_operator
from fleet.cli.keys import master_key
from fleet.cli.operator import ACTOR, with_database
from fleet.cli.output import CommandError, ExitCode, JsonFlag, invalid_field, print_fields, print_json, print_table, why
from fleet.client import FleetClient
from schemas.register_mapping import RegisterMapping
from schemas.registers import (
    DayAsked,
    RegisterFileList,
    RegisterFileShown,
    RegisterReading,
    RegisterRun,
    RegisterRunList,
    RegisterRunView,
    RegistersAsked,
    RegisterState,
)

T = TypeVar("T")
DESK = Caller(ACTOR, SYSTEM_TENANT, "person", None, frozenset({RECONCILIATION_SCOPE}), None)
"""Who holds the database's password works as one of the system's people."""
COMPARING_S = 1_800
"""How long a comparison is waited for at the API."""
_REFUSED_SHOWN = 20
_PAGE = "500"

Rail = Annotated[str, typer.Option(help="The rail, such as promptpay.")]
Day = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The rail's business day.")]
AnyRail = Annotated[str | None, typer.Option(help="Only this rail; left out, every one.")]


class ReconCommandPorts:
    """What the commands work with, under the worker role."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self.unit_of_work = database.unit_of_work
        self.registers, self.matching, self.journal = RegisterStore(), RegisterMatching(), AuditStore()
        self.rails: Any = rails
        self.register_pace = RegisterPace()
        self.ledger = cast("Ledger", PostgresLedger(database, Context(None, ACTOR)))
        self.recon, self.intents = ReconStore(), IntentStore()
        self.break_approval_above_minor = 0
        self._connection = connection

    @property
    def vault(self) -> PostgresVault:
        """What seals and opens files. Raises CommandError `master_key_malformed`."""
        return PostgresVault(master_key(self._connection))


def either(
    beside: Callable[[ReconCommandPorts], Awaitable[T]],
    over: Callable[[FleetClient], Awaitable[T]],
    *also: str,
    timeout_s: int = 10,
) -> T:
    """Do it `beside` the core, under the worker role, or `over` the API; `also` names settings that the first needs."""
    if by_api():
        return with_operator(over, timeout_s=timeout_s)

    async def work(database: Database, connection: Connection) -> T:
        return await beside(ReconCommandPorts(database, connection))

    return with_database(work, *also)


def install(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (
        ("run", run), ("fetch", fetch), ("import", import_file), ("registers", registers), ("register", register),
        ("original", original), ("show", show),
    ):  # fmt: skip
        app.command(name)(command)


def run(rail: Rail, day: Day, as_json: JsonFlag = False) -> int:
    """Compare a day's registers with payments and ledger now; exit code 1 where something does not fit."""
    asked = _asked(rail, day)

    async def over(client: FleetClient) -> list[RegisterRun]:
        return (await client.call("POST", "/v1/recon/runs", RegisterRunList, body=asked)).items

    done = either(lambda ports: desk.compare_now(ports, DESK, rail, day.date()), over, timeout_s=COMPARING_S)
    _print_runs(done, as_json)
    return ExitCode.DONE if all(each.clean for each in done) else ExitCode.CHECK_FAILED


def fetch(rail: Rail, day: Day) -> None:
    """Ask the rail's adapter to fetch the day's register, also where one was fetched before."""
    asked = _asked(rail, day)

    async def over(client: FleetClient) -> int:
        return (await client.call("POST", "/v1/registers:fetch", RegistersAsked, body=asked)).accounts

    count = either(lambda ports: desk.want_again(ports, DESK, rail, day.date()), over)
    typer.echo(f"asked for {count} register(s): fleet recon registers --day {day.date()} tells when they are there")


def import_file(
    file: Annotated[Path, typer.Argument(help="The provider's file, as it came.", exists=True, dir_okay=False)],
    provider: Annotated[str, typer.Option(help="Whose shipped mapping reads it: ipps, qp or bank.")] = "",
    mapping: Annotated[Path | None, typer.Option(help="A mapping of your own, as TOML.", exists=True)] = None,
    day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The business day; needed where the lines speak of several."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Keep it; without this it is only read.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Take a register out of a CSV file; every wrong line is refused by its number, and then none is kept."""
    chosen = _mapping(provider, mapping)
    business_day = day.date() if day else None
    with file.open("rb") as source:
        reading = _taken(chosen, source, file.name, business_day) if apply else _read(chosen, source)
    if reading.kept is None:
        return _print_reading(reading, as_json)
    view = reading.kept
    if as_json:
        print_json(view.model_dump(mode="json"))
    else:
        print_fields("register", view.model_dump())
        if view.state is RegisterState.SUPERSEDED:
            typer.echo("the day was fetched: this counts once a second person, an approver, brings the same file")
    return ExitCode.DONE


def registers(
    rail: AnyRail = None,
    day: Day | None = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """List the registers that came, the newest first."""
    query = _query(rail=rail, day=day.date() if day else None, limit=limit)
    narrowed: dict[str, Any] = {"rail": rail, "day": day.date() if day else None, "limit": limit}
    found = either(
        lambda ports: desk.list_registers(ports, DESK, **narrowed),
        lambda client: client.call("GET", "/v1/registers", RegisterFileList, query=query),
    )
    if as_json:
        print_json([each.model_dump(mode="json") for each in found.items])
        return
    rows = [
        (x.id, x.rail, x.provider_account, x.business_day, x.section, x.source, x.state, x.lines, x.name)
        for x in found.items
    ]
    print_table("registers", ("id", "rail", "account", "day", "section", "source", "state", "lines", "name"), rows)
    missing = [(x.rail, x.provider_account, x.business_day, timedelta(seconds=x.age_s)) for x in found.awaited]
    if missing:
        print_table("asked for and not here", ("rail", "account", "day", "since"), missing)


def register(register_id: UUID, as_json: JsonFlag = False) -> None:
    """Show one register: how many lines of which kind are in it, and how much they are."""
    found = either(
        lambda ports: desk.show_register(ports, DESK, register_id),
        lambda client: client.call("GET", f"/v1/registers/{register_id}", RegisterFileShown),
    )
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_fields("register", found.register_file.model_dump())
    rows = [(x.direction, x.status, x.currency, x.count, x.amount_minor, x.fee_minor) for x in found.counts]
    print_table("lines", ("direction", "status", "currency", "count", "minor units", "fees"), rows)


def original(
    register_id: UUID, out: Annotated[Path, typer.Option(help="The file to write; it must not exist.")]
) -> None:
    """Write an imported file as it came; the journal tells who took it."""

    async def over(client: FleetClient) -> bytes:
        return b"".join([part async for part in client.stream(f"/v1/registers/{register_id}/original", method="POST")])

    content = either(lambda ports: desk.original_for(ports, DESK, register_id), over, "master_key")
    try:
        with out.open("xb") as written:
            written.write(content)
    except OSError as error:
        raise CommandError("file_unwritable", f"{out}: {why(error)}") from error
    typer.echo(f"{len(content)} bytes written to {out}")


def show(day: Day, rail: AnyRail = None, as_json: JsonFlag = False) -> None:
    """Show the newest comparison of a day: how many entries came to what, and what is carried over with its age."""

    async def beside(ports: ReconCommandPorts) -> list[RegisterRunView]:
        runs = (await desk.list_runs(ports, DESK, day.date(), day.date(), rail)).items
        return [await desk.show_run(ports, DESK, each.id, limit=int(_PAGE)) for each in runs]

    async def over(client: FleetClient) -> list[RegisterRunView]:
        query = _query(first_day=day.date(), last_day=day.date(), rail=rail)
        runs = (await client.call("GET", "/v1/recon/runs", RegisterRunList, query=query)).items
        return [
            await client.call("GET", f"/v1/recon/runs/{each.id}", RegisterRunView, query={"limit": _PAGE})
            for each in runs
        ]

    found = either(beside, over)
    if as_json:
        print_json([each.model_dump(mode="json", exclude={"next_cursor"}) for each in found])
        return
    _print_runs([each.run for each in found], as_json=False)
    rows = [
        (x.intent_id, x.reference, x.amount_minor, x.currency, timedelta(seconds=x.age_s))
        for each in found for x in each.carried
    ]  # fmt: skip
    if rows:
        print_table("carried over", ("intent", "reference", "minor units", "currency", "age"), rows)


def _asked(rail: str, day: datetime) -> DayAsked:
    try:
        return DayAsked(rail=rail, business_day=day.date())
    except ValidationError as error:
        raise invalid_field(error) from error


def _query(**named: Any) -> dict[str, str]:
    return {name: str(value) for name, value in named.items() if value is not None}


def _print_runs(runs: list[RegisterRun], as_json: bool) -> None:
    if as_json:
        print_json([{**each.model_dump(mode="json"), "clean": each.clean} for each in runs])
        return
    for each in runs:
        title = f"{each.rail} {each.provider_account} on {each.business_day}: register {each.register_state}, "
        rows = [(x.side, x.match, x.currency, x.count, x.amount_minor) for x in each.tallies]
        print_table(
            title + f"{each.breaks} breaks, {each.new_breaks} new, {each.gone} gone",
            ("side", "class", "currency", "count", "minor units"),
            rows,
        )


def _mapping(provider: str, own: Path | None) -> RegisterMapping:
    known = ", ".join(shipped_names())
    if (own is None) == (provider == ""):
        raise CommandError("mapping_missing", f"give --mapping, or --provider: {known}")
    if own is None and provider not in shipped_names():
        raise CommandError("mapping_missing", f"no mapping is shipped for {provider}: {known}")
    try:
        return shipped_mapping(provider) if own is None else mapping_in(own.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError("mapping_malformed", f"{own}: {error}") from error
    except Refusal as refused:
        raise CommandError("mapping_malformed", f"{own}: {refused.detail}") from refused


def _read(mapping: RegisterMapping, source: IO[bytes]) -> RegisterReading:
    try:
        return read_through(mapping, source)
    except (OSError, UnicodeError, FileRefusedError) as error:
        raise CommandError("file_unreadable", f"{source.name}: {error}") from error


def _taken(mapping: RegisterMapping, source: IO[bytes], name: str, day: date | None) -> RegisterReading:
    query = _query(mapping=mapping.model_dump_json(exclude_defaults=True), name=name, business_day=day, apply="true")
    return either(
        lambda ports: desk.take_upload(ports, DESK, mapping, source, name, day, apply=True),
        lambda client: client.upload("/v1/registers:upload", RegisterReading, source, query),
        "master_key",
        timeout_s=COMPARING_S,
    )


def _print_reading(reading: RegisterReading, as_json: bool) -> int:
    sums = {f"{name}_minor": minor for name, minor in reading.sums_minor.items()}
    told = reading.model_dump(mode="json", exclude={"sums_minor", "refused", "kept"}) | sums
    if as_json:
        print_json(told | {"refused": [each.model_dump() for each in reading.refused]})
    else:
        heading = "refused" if reading.refused else "would be taken"
        print_fields(heading, told | {"refused_lines": len(reading.refused)})
        for each in reading.refused[:_REFUSED_SHOWN]:
            typer.echo(f"line {each.line}: {each.why}")
    return ExitCode.CHECK_FAILED if reading.refused else ExitCode.DONE
