"""`fleet rates`: what currencies are worth: terms of pairs, rates in force, versions, and the import of files."""

import sys
from typing import Annotated

import typer
from pydantic import ValidationError

from core.domain.rates import Pair
from core.services.terms.rates import (
    RatesRefusedError,
    list_pairs,
    list_rates,
    list_versions,
    record_rates,
    set_pair,
)
from core.store.database import UnitOfWork
from core.store.terms.rates import RateStore
from fleet.cli.operator import ACTOR, Tenant, in_tenant
from fleet.cli.output import CommandError, JsonFlag, invalid_field, print_fields, print_json, print_next, print_table
from fleet.cli.rate_files import BadLine, RateFile, read_rates
from fleet.stack.tenant import TENANT
from schemas.exchange import PairRequest, PairView, RateList, RateView

app = typer.Typer(help="What currencies are worth.", no_args_is_help=True)

_STORE = RateStore()

PairName = Annotated[str, typer.Argument(help="The pair, such as USD/THB: what one USD is worth in THB.")]


@app.command("list")
def list_(
    pair: Annotated[str, typer.Argument(help="Show the versions of this pair, newest first.")] = "",
    cursor: str | None = None,
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """List the rate in force of every pair; or the versions of one, newest first, a page at a time."""
    wanted = _pair(pair) if pair else None

    async def work(uow: UnitOfWork) -> RateList:
        if wanted is None:
            return await list_rates(uow, _STORE, tenant)
        return await list_versions(uow, _STORE, tenant, wanted, cursor, 100)

    found = in_tenant(tenant, work)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    _print_rates("rates", found.items)
    print_next(found)


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="CSV, or NDJSON where its name ends in .ndjson; - reads CSV from stdin.")],
    source: Annotated[str, typer.Option(help="Who told the rates of lines that name no source.")] = "file",
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Record the rates of a file: all of them, or none, and then each bad line is named."""
    read = read_rates(file, source)

    if read.bad:
        _refuse(read, read.bad)
    if not read.rates:
        raise CommandError("file_refused", f"{file} holds no rate")
    try:
        made = in_tenant(tenant, lambda uow: record_rates(uow, _STORE, tenant, ACTOR, read.rates), must_exist=True)
    except RatesRefusedError as refused:
        _refuse(read, [BadLine(read.numbers[place], why.code, why.detail) for place, why in refused.faults])
    if as_json:
        print_json({"recorded": len(made), "repeated": len(read.rates) - len(made)})
    else:
        print_fields("import", {"recorded": len(made), "recorded before": len(read.rates) - len(made)})


@app.command("pairs")
def pairs_(tenant: Tenant = TENANT, as_json: JsonFlag = False) -> None:
    """List the newest terms of every pair, disabled ones too."""
    _show_pairs(in_tenant(tenant, lambda uow: list_pairs(uow, _STORE, tenant)), as_json)


@app.command("pair")
def pair_(
    pair: PairName,
    spread_bp: Annotated[int, typer.Option(help="What the house keeps of each exchange, in basis points.")],
    max_age_s: Annotated[int, typer.Option(help="Rates that are older, in seconds, are not quoted by.")],
    quote_ttl_s: Annotated[int, typer.Option(help="How long a quote can be used, in seconds.")] = 30,
    disable: Annotated[bool, typer.Option("--disable", help="Quote the pair no more.")] = False,
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Set the terms of a pair as its next version; they hold for both directions."""
    wanted = _pair(pair)
    try:
        request = PairRequest(
            base=wanted.base,
            counter=wanted.counter,
            spread_basis_points=spread_bp,
            rate_max_age_s=max_age_s,
            quote_ttl_s=quote_ttl_s,
            enabled=not disable,
        )
    except ValidationError as error:
        raise invalid_field(error) from error

    async def work(uow: UnitOfWork) -> PairView:
        view, _new = await set_pair(uow, _STORE, tenant, ACTOR, request)
        return view

    _show_pairs([in_tenant(tenant, work, must_exist=True)], as_json)


def _pair(text: str) -> Pair:
    base, _, counter = text.upper().partition("/")
    if not (len(base) == len(counter) == 3 and (base + counter).isascii() and (base + counter).isalpha()):
        raise CommandError("pair_malformed", f"pair {text!r} should be two currencies, such as USD/THB")
    return Pair(base, counter)


def _refuse(read: RateFile, bad: list[BadLine]) -> None:
    for line in sorted(bad, key=lambda line: line.number):
        sys.stderr.write(f"line {line.number}: {line.code}: {line.text}\n")
    count = len(read.rates) + len(read.bad)
    raise CommandError("file_refused", f"{len(bad)} of {count} lines are refused, so none was recorded: mend them")


def _show_pairs(views: list[PairView], as_json: bool) -> None:
    if as_json:
        print_json([view.model_dump(mode="json") for view in views])
        return
    columns = ("pair", "version", "spread bp", "max age s", "quote ttl s", "enabled", "created_at", "created_by")
    rows = [
        (
            f"{view.pair.base}/{view.pair.counter}",
            view.version,
            view.pair.spread_basis_points,
            view.pair.rate_max_age_s,
            view.pair.quote_ttl_s,
            view.pair.enabled,
            view.created_at,
            view.created_by,
        )
        for view in views
    ]
    print_table("pairs", columns, rows)


def _print_rates(title: str, rates: list[RateView]) -> None:
    columns = ("pair", "rate", "version", "source", "observed_at", "recorded_at", "recorded_by")
    rows = [
        (f"{r.base}/{r.counter}", r.rate, r.version, r.source, r.observed_at, r.recorded_at, r.recorded_by)
        for r in rates
    ]
    print_table(title, columns, rows)
