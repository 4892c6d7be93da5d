"""`fleet fees`: what payments cost: list, set and disable rules, and try a payment on them."""

from datetime import datetime
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from core.services.terms.set_fees import disable_rule, dry_run, list_rules, list_versions, rule_id_of, set_rule
from core.store.database import UnitOfWork
from core.store.terms.fees import FeeRuleStore
from core.store.terms.limits import stored_quotas
from core.store.wallets.wallets import WalletStore
from fleet.cli.moments import moment
from fleet.cli.operator import ACTOR, Tenant, in_tenant, read_model
from fleet.cli.output import JsonFlag, invalid_field, print_fields, print_json, print_table
from fleet.stack.tenant import TENANT
from schemas.fees import FeeDryRunRequest, FeeRuleRequest, FeeRuleView
from schemas.limits import QuotaObject
from schemas.operations import OperationType

app = typer.Typer(help="What payments cost.", no_args_is_help=True)

_BOOK = FeeRuleStore()

Name = Annotated[str, typer.Argument(help="The rule's name.")]


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Show every version of this rule.")] = None,
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """List the newest version of every rule, disabled ones too; or every version of one."""

    async def work(uow: UnitOfWork) -> list[FeeRuleView]:
        if name is None:
            return await list_rules(uow, _BOOK, tenant)
        return await list_versions(uow, _BOOK, tenant, rule_id_of(tenant, name))

    found = in_tenant(tenant, work)
    if as_json:
        print_json([view.model_dump(mode="json") for view in found])
        return
    columns = ("name", "version", "operation", "currency", "phase", "priority", "when", "fee", "enabled", "valid_from")
    print_table("fee rules", columns, [[_fields(view)[column] for column in columns] for view in found])


@app.command("set")
def set_(
    file: Annotated[str, typer.Argument(help="A JSON file with one rule (see docs/fees.md); - reads it from stdin.")],
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Check a rule and keep it as the next version of its name; obeyed within seconds."""
    request = read_model(FeeRuleRequest, file)

    async def work(uow: UnitOfWork) -> FeeRuleView:
        view, is_new = await set_rule(uow, _BOOK, WalletStore(), tenant, ACTOR, request)
        if is_new:
            await stored_quotas().check(uow, tenant, QuotaObject.FEE_RULES)
        return view

    _show(in_tenant(tenant, work, must_exist=True), as_json)


@app.command()
def disable(name: Name, tenant: Tenant = TENANT, as_json: JsonFlag = False) -> None:
    """Take nothing by this rule any more; payments that were priced keep their fees."""
    _show(
        in_tenant(
            tenant, lambda uow: disable_rule(uow, _BOOK, tenant, ACTOR, rule_id_of(tenant, name)), must_exist=True
        ),
        as_json,
    )


@app.command("dry-run")
def dry_run_(
    operation: Annotated[OperationType, typer.Argument(help="The operation, such as PAYOUT.")],
    amount_minor: Annotated[int, typer.Argument(help="The amount in minor units.")],
    currency: Annotated[str, typer.Argument(help="The currency, such as THB.")] = "THB",
    tier: str = "",
    channel: str = "",
    at: Annotated[datetime | None, typer.Option(parser=moment, help="The moment, UTC; left out, now.")] = None,
    bought: Annotated[bool, typer.Option("--bought", help="The amount is what an EXCHANGE buys.")] = False,
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Show the fees of a payment that is not made, and why each rule applied or not."""
    try:
        request = FeeDryRunRequest(
            operation=operation,
            amount_minor=amount_minor,
            currency=currency.upper(),
            tier=tier,
            channel=channel,
            at=at,
            bought=bought,
        )
    except ValidationError as error:
        raise invalid_field(error) from error
    view = in_tenant(tenant, lambda uow: dry_run(uow, _BOOK, tenant, request), must_exist=True)
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    rules = [(rule.name, rule.version, rule.phase, rule.outcome, rule.fee_minor, rule.when) for rule in view.rules]
    print_table("rules, in the order they are looked at", ("name", "version", "phase", "outcome", "fee", "when"), rules)
    legs = [
        (leg.name, leg.phase, leg.wallet_id or f"{leg.code} {leg.qualifier}", leg.amount_minor) for leg in view.legs
    ]
    print_table("legs (minor units)", ("leg", "phase", "to", "amount"), legs)
    totals = {name: getattr(view, name) for name in ("pre_minor", "post_minor", "debited_minor", "received_minor")}
    print_fields("totals", totals)


def _show(view: FeeRuleView, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
    else:
        print_fields("fee rule", _fields(view))


def _fields(view: FeeRuleView) -> dict[str, Any]:
    fee = view.rule["fee"]
    if fee["kind"] == "RATE":
        text = f"{fee['fixed_minor']} + {fee['basis_points']} bp, {fee['rounding']}"
    else:
        text = fee["expression"]
    return view.model_dump(exclude={"rule"}) | view.rule | {"fee": text, "valid_from": view.valid_from}
