"""`fleet limits`: what may be paid: list, set and disable limits, show what a wallet has left, prove the counters."""

from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic import ValidationError

from core.services.terms.set_limits import (
    disable_limit,
    limit_id_of,
    list_limits,
    list_versions,
    set_limit,
    set_tier,
    wallet_limits,
)
from core.store.database import UnitOfWork
from core.store.payments.intents import IntentStore
from core.store.terms.limits import LimitStore, stored_quotas
from fleet.cli.operator import ACTOR, Tenant, in_tenant, read_model
from fleet.cli.output import ExitCode, JsonFlag, invalid_field, print_fields, print_json, print_table
from fleet.stack.tenant import TENANT
from schemas.limits import LimitRequest, LimitView, QuotaObject, TierRequest, WalletLimits

app = typer.Typer(help="What may be paid.", no_args_is_help=True)

_STORE = LimitStore()

Wallet = Annotated[UUID, typer.Argument(help="The wallet's id.")]


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Show every version of this limit.")] = None,
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """List the newest version of every limit, disabled ones too; or every version of one."""

    async def work(uow: UnitOfWork) -> list[LimitView]:
        if name is None:
            return await list_limits(uow, _STORE, tenant)
        return await list_versions(uow, _STORE, tenant, limit_id_of(tenant, name))

    found = in_tenant(tenant, work)
    if as_json:
        print_json([view.model_dump(mode="json") for view in found])
        return
    columns = (
        "name",
        "version",
        "kind",
        "subject",
        "operation",
        "tier",
        "currency",
        "amount",
        "count",
        "timezone",
        "enabled",
    )
    rows = [_fields(view) for view in found]
    print_table("limits", columns, [[row[column] for column in columns] for row in rows])


@app.command("set")
def set_(
    file: Annotated[str, typer.Argument(help="A JSON file with one limit (docs/limits.md); - reads it from stdin.")],
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Keep a limit as the next version of its name; obeyed within seconds."""
    request = read_model(LimitRequest, file)

    async def work(uow: UnitOfWork) -> LimitView:
        view, is_new = await set_limit(uow, _STORE, tenant, ACTOR, request)
        if is_new:
            await stored_quotas().check(uow, tenant, QuotaObject.LIMITS)
        return view

    _show(in_tenant(tenant, work, must_exist=True), as_json)


@app.command()
def disable(
    name: Annotated[str, typer.Argument(help="The limit's name.")], tenant: Tenant = TENANT, as_json: JsonFlag = False
) -> None:
    """Limit nothing by this any more; what payments hold of it ends with them."""
    _show(
        in_tenant(
            tenant, lambda uow: disable_limit(uow, _STORE, tenant, ACTOR, limit_id_of(tenant, name)), must_exist=True
        ),
        as_json,
    )


@app.command()
def show(wallet: Wallet, tenant: Tenant = TENANT, as_json: JsonFlag = False) -> None:
    """Show every limit of a wallet now: used, held, left and when it renews."""

    async def work(uow: UnitOfWork) -> WalletLimits:
        now = (await IntentStore().moment(uow)).now
        return await wallet_limits(uow, _STORE, tenant, wallet, now)

    _show_wallet(in_tenant(tenant, work), as_json)


@app.command()
def tier(
    wallet: Wallet,
    name: Annotated[str, typer.Argument(help="The tier, such as basic; an empty text takes it away.")],
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Give a wallet its tier, for payments from now on."""
    try:
        wanted = TierRequest(tier=name).tier
    except ValidationError as error:
        raise invalid_field(error) from error

    async def work(uow: UnitOfWork) -> WalletLimits:
        await set_tier(uow, _STORE, tenant, wallet, wanted)
        now = (await IntentStore().moment(uow)).now
        return await wallet_limits(uow, _STORE, tenant, wallet, now)

    _show_wallet(in_tenant(tenant, work), as_json)


@app.command()
def verify(as_json: JsonFlag = False) -> int:
    """Prove that every counter is the sum of what intents have at it; exit code 1 names each that is not."""
    wrong = in_tenant(None, _STORE.verify)
    if as_json:
        print_json(
            {
                "holds": not wrong,
                "discrepancies": [
                    {"limit_id": w.limit_id, "subject": w.subject, "period": w.period, "detail": w.detail}
                    for w in wrong
                ],
            }
        )
    else:
        print_fields("limits", {"holds": not wrong})
        if wrong:
            rows = [(w.limit_id, w.subject, w.period, w.detail) for w in wrong]
            print_table("discrepancies", ("limit", "subject", "period", "held/used minor and count"), rows)
    return ExitCode.CHECK_FAILED if wrong else ExitCode.DONE


def _show(view: LimitView, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
    else:
        print_fields("limit", _fields(view))


def _show_wallet(view: WalletLimits, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    print_fields("wallet", {"wallet_id": view.wallet_id, "tier": view.tier})
    columns = (
        "name",
        "kind",
        "subject",
        "used_minor",
        "held_minor",
        "left_minor",
        "left_count",
        "renews_at",
        "timezone",
    )
    print_table("limits", columns, [[getattr(item, column) for column in columns] for item in view.items])


def _fields(view: LimitView) -> dict[str, Any]:
    fields = view.limit | view.model_dump(exclude={"limit"})
    return fields | {"amount": fields.pop("max_amount_minor"), "count": fields.pop("max_count")}
