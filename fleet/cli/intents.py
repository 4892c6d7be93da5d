"""`fleet intents`: create, show, list, confirm, cancel, refund."""

from typing import Annotated, Any, Final
from uuid import UUID, uuid4

import typer
from pydantic import TypeAdapter, ValidationError

from core.services.on_call.rail_desk import ask_provider
from fleet.cli.connection import with_client, with_operator
from fleet.cli.dry_run import Yes, show_dry_run
from fleet.cli.output import (
    CommandError,
    ExitCode,
    JsonFlag,
    invalid_field,
    print_fields,
    print_json,
    print_page,
)
from fleet.cli.rails import DESK, at_desk
from fleet.client import FleetClient
from schemas.api import AutoConfirm, ConfirmRequest, IdempotencyKey, IntentRequest, IntentView, OnBehalfOf, ScannedPayee
from schemas.events import IntentState
from schemas.money import AmountError, currency_of, money_text, to_minor
from schemas.operations import COLLECTED, Direction, OperationType
from schemas.permits import Payee
from schemas.rail_desk import ProviderAsked, RevealAsked, RevealedView

_KEY: TypeAdapter[str] = TypeAdapter(IdempotencyKey)

app = typer.Typer(help="Payments.", no_args_is_help=True)


@app.command()
def create(
    wallet: Annotated[UUID, typer.Option(help="The wallet's id.")],
    amount: Annotated[str, typer.Option(help="Decimal major units, such as 125.50.")],
    payee: Annotated[str, typer.Option(help="TYPE:VALUE, such as mobile:0812345678.")] = "",
    qr: Annotated[str, typer.Option(help="Instead of a payee: the text of a PromptPay or bill code.")] = "",
    to: Annotated[UUID | None, typer.Option(help="The other wallet, of an operation between two.")] = None,
    debit: Annotated[bool, typer.Option("--debit", help="Of an adjustment: out of the wallet, not into it.")] = False,
    to_suspense: Annotated[
        bool, typer.Option("--to-suspense", help="Of an adjustment: out of the wallet, into suspense.")
    ] = False,
    review: Annotated[bool, typer.Option("--review", help="Hold it until another key approves it.")] = False,
    user: Annotated[str, typer.Option(help="Whom it is made for: the wallet's owner.")] = "",
    agent: Annotated[str, typer.Option(help="Who acts for --user in the house.")] = "",
    currency: str = "THB",
    operation: OperationType = OperationType.PAYOUT,
    message: str = "",
    reference: str = "",
    key: Annotated[str, typer.Option(help="Idempotency key; a new one is minted where it is left out.")] = "",
    auto_confirm: Annotated[bool, typer.Option(help="Pay at once if the fee is at most --max-fee-minor.")] = True,
    max_fee_minor: int = 0,
    as_json: JsonFlag = False,
) -> None:
    """Ask for one payment."""
    try:
        request = IntentRequest(
            operation=operation,
            wallet_id=wallet,
            amount_minor=to_minor(amount, currency_of(currency)),
            currency=currency,
            payee=_payee(payee, qr),
            counterparty_wallet_id=to,
            direction=Direction.TO_SUSPENSE if to_suspense else Direction.DEBIT if debit else None,
            requires_monitoring=review,
            on_behalf_of=OnBehalfOf(user=user, agent=agent or None) if user or agent else None,
            message=message,
            reference=reference,
            auto_confirm=AutoConfirm(max_fee_minor=max_fee_minor) if auto_confirm and (payee or qr) else None,
        )
    except AmountError as error:
        raise CommandError(error.code, str(error)) from error
    except ValidationError as error:
        raise invalid_field(error) from error
    create_once(request, key, as_json)


@app.command()
def show(
    intent_id: UUID,
    everything: Annotated[bool, typer.Option("--all", help="Also what is empty.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show one payment: what became of it, its amounts, whom it is for, when."""
    show_intent(with_client(lambda client: client.get_intent(intent_id)), as_json, everything=everything)


@app.command("list")
def list_(
    state: IntentState | None = None,
    wallet: UUID | None = None,
    reference: str | None = None,
    cursor: str | None = None,
    as_json: JsonFlag = False,
) -> None:
    """List payments, newest first, a page at a time."""
    filters = {"state": state, "wallet_id": wallet, "reference": reference}
    chosen = {name: str(value) for name, value in filters.items() if value is not None}
    page = with_client(lambda client: client.page_of_intents(cursor=cursor, **chosen))
    columns = ("id", "state", "amount", "payee", "reference", "failure")
    print_page(
        page, as_json, "intents", columns,
        lambda x: (x.id, x.state, money_of(x), x.payee_masked, x.reference, _failure(x)),
    )  # fmt: skip


@app.command()
def confirm(
    intent_id: UUID,
    amount_minor: int,
    fee_minor: int = 0,
    as_json: JsonFlag = False,
) -> None:
    """Say yes to what the lookup found: amount and fee must be the ones it answered."""
    try:
        request = ConfirmRequest(amount_minor=amount_minor, fee_minor=fee_minor)
    except ValidationError as error:
        raise invalid_field(error) from error
    show_intent(with_client(lambda client: client.confirm_intent(intent_id, request)), as_json)


@app.command()
def cancel(intent_id: UUID, as_json: JsonFlag = False) -> None:
    """Cancel a payment that was provably not sent; refused otherwise."""
    show_intent(with_client(lambda client: client.cancel_intent(intent_id)), as_json)


@app.command()
def ask(intent_id: UUID) -> None:
    """Ask the provider now what became of a payment, whatever callback or statement was missed."""

    path = f"/v1/intents/{intent_id}/ask"

    async def over(client: FleetClient) -> int:
        return (await client.call("POST", path, ProviderAsked)).asked

    if not at_desk(over, lambda ports: ask_provider(ports, DESK, intent_id)):
        text = "nothing of this payment waits for an answer: `fleet intents show` says where it stands"
        raise CommandError("nothing_to_ask", text, ExitCode.REFUSED)
    typer.echo("the provider is asked")


@app.command()
def reveal(
    intent_id: UUID,
    reason: Annotated[str, typer.Option(help="Why; the journal keeps it with who looked.")],
    as_json: JsonFlag = False,
) -> None:
    """Show payee and message in the clear. Who looked and why is in the audit journal before they are shown."""
    try:
        asked = RevealAsked(reason=reason)
    except ValidationError as error:
        raise invalid_field(error) from error
    path = f"/v1/intents/{intent_id}/reveal"
    shown = with_operator(lambda client: client.call("POST", path, RevealedView, body=asked))
    document = shown.model_dump(mode="json")
    if as_json:
        print_json(document)
    else:
        print_fields("revealed", {**(document["payee"] or {}), "message": shown.message})


@app.command()
def refund(
    intent_id: UUID,
    amount: Annotated[str, typer.Option(help="Decimal major units; left out, all that was received.")] = "",
    reference: str = "",
    key: Annotated[str, typer.Option(help="Idempotency key; a new one is minted where it is left out.")] = "",
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Give a settled payment back, in part or whole, out of the wallet that received it.

    A payment between wallets settles at once; what was collected goes back through the rail that it came by.
    """
    original = with_client(lambda client: client.get_intent(intent_id))
    try:
        request = IntentRequest(
            operation=OperationType.REFUND,
            original_intent_id=intent_id,
            wallet_id=_recipient(original),
            amount_minor=to_minor(amount, currency_of(original.currency)) if amount else paid_minor(original),
            currency=original.currency,
            reference=reference,
        )
    except AmountError as error:
        raise CommandError(error.code, str(error)) from error
    except ValidationError as error:
        raise invalid_field(error) from error
    if yes:
        create_once(request, key, as_json)
        return
    told = {"payment": intent_id, "state": original.state, "amount": money_text(request.amount_minor, request.currency)}
    show_dry_run("give back", told | {"out of wallet": request.wallet_id}, as_json)


def _recipient(original: IntentView) -> UUID:
    """Return the wallet that received a payment. Raises CommandError `original_not_refundable` where none did."""
    if original.counterparty_wallet_id:
        return original.counterparty_wallet_id
    if original.operation in COLLECTED or original.direction == Direction.SUSPENSE:
        return original.wallet_id
    text = f"{original.operation} went to no wallet of ours, and only what a wallet received is refunded"
    raise CommandError("original_not_refundable", text, ExitCode.REFUSED)


def paid_minor(original: IntentView) -> int:
    """Return all that there was to give back: of a collection what its payer paid, the fees that it cost included."""
    if original.operation in COLLECTED:
        return original.received_minor + sum(leg.amount_minor for leg in original.fees)
    return original.received_minor


def create_once(request: IntentRequest, key: str, as_json: bool) -> None:
    """Ask for a payment under the key, or a new one, and show it. Raises CommandError."""
    try:
        used_key = _KEY.validate_python(key) if key else uuid4().hex
    except ValidationError as error:
        raise invalid_field(error) from error
    view = with_client(
        lambda client: client.create_intent(request, idempotency_key=used_key),
        if_unanswered=f"It may have taken the payment: repeat it with --key {used_key}",
    )
    show_intent(view, as_json, idempotency_key=used_key)


def _payee(text: str, qr: str) -> Payee | ScannedPayee | None:
    if text and qr:
        raise CommandError("payee_ambiguous", "give either --payee or --qr")
    if qr:
        return ScannedPayee(qr=qr)
    if not text:
        return None
    kind, separator, value = text.partition(":")
    if not separator:
        raise CommandError("payee_malformed", f"payee {text!r} should be TYPE:VALUE, such as mobile:0812345678")
    return Payee(type=kind, value=value)


_ORDER: Final = (
    "id", "operation", "state", "failure", "next_action", "amount", "fee", "received", "confirmed", "fees", "exchange",
    "returned", "payee_type", "payee_masked", "lookup", "wallet_id", "counterparty_wallet_id", "direction",
    "original_intent_id", "reference", "comment", "rail", "provider_reference", "created_at", "updated_at", "deadline",
)  # fmt: skip
"""What happened, the amounts, whom it is for, by which way, when; whatever else there is comes after."""


def show_intent(view: IntentView, as_json: bool, *, everything: bool = False, **more: object) -> None:
    """Print a payment; as a table without what is empty, unless `everything` is asked for."""
    document: dict[str, Any] = {**view.model_dump(mode="json"), **more}
    if as_json:
        print_json(document)
        return
    # What the recipient gets is received once it is settled, and no payment before says so.
    received = view.received_minor if view.state is IntentState.SETTLED else None
    amounts = {"amount": view.amount_minor, "fee": view.fee_minor, "received": received,
               "confirmed": view.confirmed_minor}  # fmt: skip
    told = {name: value for name, value in document.items() if not name.endswith("_minor")}
    told |= {name: money_text(minor, view.currency) if minor else None for name, minor in amounts.items()}
    told |= {
        "fees": _fees(view),
        "exchange": _bought(view),
        "lookup": _looked_up(view),
        "returned": _returned(view),
        "next_action": view.next_action.payload if view.next_action else None,
        "failure": _failure(view),
        "created_at": view.created_at,
        "updated_at": view.updated_at,
        "deadline": view.deadline,
    }
    del told["currency"]
    places = {name: place for place, name in enumerate(_ORDER)}
    names = sorted(told, key=lambda name: places.get(name, len(places)))
    print_fields("intent", {name: told[name] for name in names if everything or told[name] not in (None, "", False)})


def money_of(view: IntentView) -> str:
    """Return the amount in major units, with its currency."""
    return money_text(view.amount_minor, view.currency)


def _fees(view: IntentView) -> str | None:
    return (
        ", ".join(f"{leg.name} {leg.phase} {money_text(leg.amount_minor, leg.currency)}" for leg in view.fees) or None
    )


def _bought(view: IntentView) -> str | None:
    if view.exchange is None:
        return None
    return money_text(view.exchange.received_minor, view.exchange.currency)


def _returned(view: IntentView) -> str | None:
    if view.returned is None:
        return None
    back = view.returned
    announced = f"of {money_text(back.announced_minor, view.currency)} announced" if back.announced_minor else ""
    provider = f"({back.provider_reason})" if back.provider_reason else ""
    return " ".join(
        part for part in (money_text(back.booked_minor, view.currency), announced, back.reason, provider) if part
    )


def _looked_up(view: IntentView) -> str | None:
    if view.lookup is None:
        return None
    found, qr = view.lookup, view.lookup.qr
    parts = [
        found.payee_name_masked or "no name told",
        f"fee {money_text(found.fee_minor, view.currency)}",
        f"until {found.expires_at:%Y-%m-%d %H:%M:%S}" if found.expires_at else "",
    ]
    if qr is not None:
        asked = "any amount" if qr.amount_minor is None else money_text(qr.amount_minor, qr.currency)
        parts += [
            f"code: {qr.kind.value} of {asked}{', for one payment' if qr.one_time else ''}",
            *(f"{name} {text}" for name, text in (("merchant", qr.merchant_name), ("biller", qr.biller_id),
                                                  ("ref1", qr.ref1_masked), ("ref2", qr.ref2_masked)) if text),
        ]  # fmt: skip
    return "; ".join(part for part in parts if part)


def _failure(view: IntentView) -> str | None:
    return f"{view.failure.code}: {view.failure.message}" if view.failure else None
