"""`fleet mandates`: what debtors signed, so that direct debits may be pulled."""

from datetime import date
from typing import Annotated
from uuid import UUID

import typer
from pydantic import ValidationError

from fleet.cli.connection import with_client
from fleet.cli.output import CommandError, JsonFlag, invalid_field, print_fields, print_json, print_page
from schemas.mandates import MandateCancelRequest, MandateDetail, MandateKind, MandatePage, MandateRequest
from schemas.money import AmountError, currency_of, to_minor

app = typer.Typer(help="Mandates: under which money is pulled by direct debit.", no_args_is_help=True)
_PATH = "/v1/mandates"


@app.command()
def add(
    mandate_id: Annotated[str, typer.Argument(help="As the debtor signed it: A-Z, 0-9 and hyphens.")],
    wallet: Annotated[UUID, typer.Option(help="Where what is pulled is credited.")],
    signed_on: Annotated[str, typer.Option(help="The day of signature, such as 2026-01-05.")],
    account: Annotated[str, typer.Option(help="The debtor's bank and account, such as 004-0123456789.")],
    name: Annotated[str, typer.Option(help="The debtor's name.")],
    max_amount: Annotated[str, typer.Option(help="The most that one debit takes, such as 1500.00.")] = "",
    valid_from: Annotated[str, typer.Option(help="The first day; left out, the day of signature.")] = "",
    valid_until: Annotated[str, typer.Option(help="The last day; left out, none.")] = "",
    one_off: Annotated[bool, typer.Option("--one-off", help="It is drawn on once.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Register a mandate; the same one again is shown as it stands."""
    currency = with_client(lambda client: client.get_wallet(wallet)).currency
    try:
        request = MandateRequest(
            mandate_id=mandate_id,
            wallet_id=wallet,
            kind=MandateKind.ONE_OFF if one_off else MandateKind.RECURRING,
            signed_on=_day(signed_on),
            debtor_account=account,
            debtor_name=name,
            max_amount_minor=to_minor(max_amount, currency_of(currency)) if max_amount else None,
            valid_from=_day(valid_from) if valid_from else None,
            valid_until=_day(valid_until) if valid_until else None,
        )
    except AmountError as error:
        raise CommandError(error.code, str(error)) from error
    except ValidationError as error:
        raise invalid_field(error) from error
    _show(with_client(lambda client: client.call("POST", _PATH, MandateDetail, body=request)), as_json)


@app.command("list")
def list_(
    wallet: Annotated[UUID | None, typer.Option(help="Those of one wallet.")] = None,
    cursor: str | None = None,
    as_json: JsonFlag = False,
) -> None:
    """List mandates in the order of their ids, a page at a time."""
    asked = {"wallet_id": str(wallet) if wallet else None, "cursor": cursor}
    query = {name: value for name, value in asked.items() if value is not None}
    page = with_client(lambda client: client.call("GET", _PATH, MandatePage, query=query))
    columns = ("id", "state", "kind", "wallet", "account", "valid until")
    print_page(
        page, as_json, "mandates", columns,
        lambda x: (x.mandate_id, x.state, x.kind, x.wallet_id, x.account_masked, x.valid_until or ""),
    )  # fmt: skip


@app.command()
def show(mandate_id: str, as_json: JsonFlag = False) -> None:
    """Show a mandate and its newest debits."""
    _show(with_client(lambda client: client.call("GET", f"{_PATH}/{mandate_id}", MandateDetail)), as_json)


@app.command()
def cancel(
    mandate_id: str,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit journal.")],
    as_json: JsonFlag = False,
) -> None:
    """Let nothing more be pulled under a mandate; its debits that were not sent end CANCELLED."""
    try:
        request = MandateCancelRequest(reason=reason)
    except ValidationError as error:
        raise invalid_field(error) from error
    path = f"{_PATH}/{mandate_id}/cancel"
    _show(with_client(lambda client: client.call("POST", path, MandateDetail, body=request)), as_json)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CommandError("day_malformed", f"{text!r} is no day: write it as 2026-01-05") from error


def _show(view: MandateDetail, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    debits = ", ".join(f"{each.sequence} {each.intent_id} {each.state}" for each in view.debits)
    fields = view.model_dump(exclude={"debits"}) | {"debits": debits}
    print_fields("mandate", {name: value for name, value in fields.items() if value not in (None, "")})
