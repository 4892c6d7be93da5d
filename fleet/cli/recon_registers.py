"""`fleet recon run | fetch | import | registers | original | show`: what providers say, against payments and ledger."""

import tomllib
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
from pydantic import ValidationError

from core.domain.context import Context
from core.domain.register_files import FileRefusedError, RefusedLine, read_register
from core.domain.register_records import Record
from core.services.import_register import PIECE_BYTES, day_of, import_register, original_of, read_through
from core.services.problems import Refusal
from core.services.registers import DayBusyError, RegisterPace, account_of, compare_day
from core.store import rails
from core.store.audit import AuditStore
from core.store.database import Database
from core.store.register_matching import RegisterMatching
from core.store.registers import RegisterStore
from core.store.vault import PostgresVault
from fleet.cli.connection import Connection
from fleet.cli.keys import master_key
from fleet.cli.operator import ACTOR, with_database
from fleet.cli.output import CommandError, ExitCode, JsonFlag, invalid_field, print_fields, print_json, print_table
from schemas.register_mapping import RegisterMapping
from schemas.registers import RegisterFileView, RegisterReading, RegisterRun, RegisterRunView

T = TypeVar("T")
CONTEXT = Context(None, ACTOR)
_REFUSED_SHOWN = 20

Rail = Annotated[str, typer.Option(help="The rail, such as promptpay.")]
Day = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The rail's business day.")]
AnyRail = Annotated[str | None, typer.Option(help="Only this rail; left out, every one.")]


class RegisterCommandPorts:
    """What the commands work with, under the worker role."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self.unit_of_work = database.unit_of_work
        self.registers, self.matching, self.journal = RegisterStore(), RegisterMatching(), AuditStore()
        self.rails: Any = rails
        self.register_pace = RegisterPace()
        self._connection = connection

    @property
    def vault(self) -> PostgresVault:
        """What seals and opens files. Raises CommandError `master_key_malformed`."""
        return PostgresVault(master_key(self._connection))


def install(app: typer.Typer) -> None:
    """Add the commands."""
    for name, command in (
        ("run", run), ("fetch", fetch), ("import", import_file), ("registers", registers), ("original", original),
        ("show", show),
    ):  # fmt: skip
        app.command(name)(command)


def run(rail: Rail, day: Day, as_json: JsonFlag = False) -> int:
    """Compare a day's registers with payments and ledger now; exit code 1 where something does not fit."""

    async def work(ports: RegisterCommandPorts) -> list[RegisterRun]:
        async with ports.unit_of_work(CONTEXT) as uow:
            accounts = await account_of(uow, ports, rail)
        try:
            return [await compare_day(ports, CONTEXT, account, day.date()) for account in accounts]
        except DayBusyError as busy:
            raise CommandError("day_busy", "somebody compares this day now: try again", ExitCode.REFUSED) from busy

    done = _with_ports(work)
    _print_runs(done, as_json)
    return ExitCode.DONE if all(each.clean for each in done) else ExitCode.CHECK_FAILED


def fetch(rail: Rail, day: Day) -> None:
    """Ask the rail's adapter to fetch the day's register, also where one was fetched before."""

    async def work(ports: RegisterCommandPorts) -> int:
        async with ports.unit_of_work(CONTEXT) as uow:
            accounts = await account_of(uow, ports, rail)
            for account in accounts:
                await ports.registers.want(uow, account, [day.date()], again=True)
        return len(accounts)

    count = _with_ports(work)
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
    reading = read_through(chosen, _lines(chosen, file))
    if reading.refused or not apply:
        return _print_reading(reading, as_json)
    try:
        business_day = day_of(day.date() if day else None, reading)
    except Refusal as refused:
        raise CommandError(refused.code, refused.detail) from refused

    async def work(ports: RegisterCommandPorts) -> RegisterFileView:
        records = (line for line in _lines(chosen, file) if not isinstance(line, RefusedLine))
        return await import_register(ports, CONTEXT, chosen, business_day, file.name, records, _pieces(file))

    view = _with_ports(work, "master_key")
    if as_json:
        print_json(view.model_dump(mode="json"))
    else:
        print_fields("register", view.model_dump())
    return ExitCode.DONE


def registers(rail: AnyRail = None, day: Day | None = None, limit: int = 100, as_json: JsonFlag = False) -> None:
    """List the registers that came, the newest first."""

    async def work(ports: RegisterCommandPorts) -> list[RegisterFileView]:
        async with ports.unit_of_work(CONTEXT) as uow:
            return await ports.registers.files(uow, rail, day.date() if day else None, limit)

    found = _with_ports(work)
    if as_json:
        print_json([each.model_dump(mode="json") for each in found])
        return
    rows = [
        (x.id, x.rail, x.provider_account, x.business_day, x.section, x.source, x.state, x.lines, x.name) for x in found
    ]
    print_table("registers", ("id", "rail", "account", "day", "section", "source", "state", "lines", "name"), rows)


def original(
    register_id: UUID, out: Annotated[Path, typer.Option(help="The file to write; it must not exist.")]
) -> None:
    """Write an imported file as it came."""

    async def work(ports: RegisterCommandPorts) -> bytes:
        return await original_of(ports, CONTEXT, register_id)

    content = _with_ports(work, "master_key")
    if not content:
        raise CommandError("not_found", "no imported register has this id; what was fetched has no file")
    try:
        with out.open("xb") as written:
            written.write(content)
    except OSError as error:
        raise CommandError("file_unwritable", f"{out}: {error}") from error
    typer.echo(f"{len(content)} bytes written to {out}")


def show(day: Day, rail: AnyRail = None, as_json: JsonFlag = False) -> None:
    """Show the newest comparison of a day: how many entries came to what, and what is carried over with its age."""

    async def work(ports: RegisterCommandPorts) -> list[RegisterRunView]:
        async with ports.unit_of_work(CONTEXT) as uow:
            found = await ports.registers.runs(uow, day.date(), day.date(), rail)
            carried = [await ports.registers.carried(uow, each.id, 1000) for each in found]
            return [RegisterRunView(run=each, carried=items) for each, items in zip(found, carried, strict=True)]

    found = _with_ports(work)
    if as_json:
        print_json([each.model_dump(mode="json") for each in found])
        return
    _print_runs([each.run for each in found], as_json=False)
    rows = [
        (x.intent_id, x.reference, x.amount_minor, x.currency, timedelta(seconds=x.age_s))
        for each in found for x in each.carried
    ]  # fmt: skip
    if rows:
        print_table("carried over", ("intent", "reference", "minor units", "currency", "age"), rows)


def _with_ports(work: Callable[[RegisterCommandPorts], Awaitable[T]], *also: str) -> T:
    async def run_(database: Database, connection: Connection) -> T:
        return await work(RegisterCommandPorts(database, connection))

    return with_database(run_, *also)


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
    shipped = {each.name.removesuffix(".toml"): each for each in files("fleet").joinpath("registers").iterdir()}
    if (own is None) == (provider == ""):
        raise CommandError("mapping_missing", f"give --mapping, or --provider: {', '.join(sorted(shipped))}")
    if own is None and provider not in shipped:
        raise CommandError("mapping_missing", f"no mapping is shipped for {provider}: {', '.join(sorted(shipped))}")
    source = own if own is not None else shipped[provider]
    try:
        return RegisterMapping.model_validate(tomllib.loads(source.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise invalid_field(error) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CommandError("mapping_malformed", f"{source}: {error}") from error


def _lines(mapping: RegisterMapping, file: Path) -> Iterator[Record | RefusedLine]:
    try:
        with file.open(encoding=mapping.encoding, newline="") as text:
            yield from read_register(mapping, text)
    except (OSError, UnicodeDecodeError, FileRefusedError) as error:
        raise CommandError("file_unreadable", f"{file}: {error}") from error


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(PIECE_BYTES):
            yield piece


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
