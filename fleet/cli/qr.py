"""`fleet qr`: read and write Thai payment codes. Nothing is sent or paid."""

from typing import Annotated

import typer

from fleet.cli.output import CommandError, JsonFlag, print_fields, print_json
from schemas.codes.emvco import encode_bill_payment, encode_credit_transfer, satang
from schemas.codes.nspk_link import LinkError
from schemas.codes.payable import recognise
from schemas.codes.proxies import ProxyType
from schemas.codes.tlv import QrError

app = typer.Typer(help="Thai payment codes: PromptPay and bill QR, bank slips, bill barcodes.", no_args_is_help=True)

_PAYEE_TYPES = {
    "mobile": ProxyType.MOBILE,
    "national_id": ProxyType.NATIONAL_ID,
    "ewallet": ProxyType.EWALLET,
    "bank_account": ProxyType.BANK_ACCOUNT,
}


@app.command()
def decode(
    payload: Annotated[str, typer.Argument(help="The code's text; \\r may be written as backslash and r.")],
    as_json: JsonFlag = False,
) -> None:
    """Show what a code says. Recognises payment QR, bank slips, bill barcodes and links of SBP."""
    try:
        # A shell cannot easily pass a carriage return, so its two-character spelling is taken too.
        kind, fields = recognise(payload.replace("\\r", "\r") if payload.startswith("|") else payload)
    except (QrError, LinkError) as error:
        raise CommandError(error.code, str(error)) from error
    if as_json:
        print_json(fields)
    else:
        print_fields(kind, {name: _cell(value) for name, value in fields.items()})


def _cell(value: object) -> object:
    if isinstance(value, dict):
        return "  ".join(f"{tag}={text}" for tag, text in value.items())
    return " ".join(value) if isinstance(value, list) else value


@app.command()
def encode(
    payee: Annotated[str | None, typer.Argument(help="TYPE:VALUE, such as mobile:0812345678.")] = None,
    biller: Annotated[str | None, typer.Option(help="Instead of a payee: a bill's biller id, 15 digits.")] = None,
    ref1: Annotated[str | None, typer.Option(help="The bill's first reference.")] = None,
    ref2: Annotated[str | None, typer.Option(help="The bill's second reference.")] = None,
    amount: Annotated[str | None, typer.Option(help="Baht, such as 125.50; left out, the payer chooses.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the QR text of a payee (mobile, national_id, ewallet, bank_account) or of a bill."""
    if (payee is None) == (biller is None):
        raise CommandError("payee_ambiguous", "give either a payee, such as mobile:0812345678, or --biller")
    if (biller is None) != (ref1 is None) or (biller is None and ref2 is not None):
        raise CommandError("bill_reference_malformed", "--biller needs --ref1; --ref1 and --ref2 belong to --biller")
    try:
        amount_minor = None if amount is None else satang(amount)
        if biller is not None and ref1 is not None:
            payload = encode_bill_payment(biller, ref1, ref2, amount_minor=amount_minor)
        else:
            payload = encode_credit_transfer(*_payee(payee or ""), amount_minor=amount_minor)
    except QrError as error:
        raise CommandError(error.code, str(error)) from error
    if as_json:
        print_json({"payload": payload})
    else:
        typer.echo(payload)


def _payee(text: str) -> tuple[ProxyType, str]:
    kind, _, value = text.partition(":")
    if kind not in _PAYEE_TYPES or not value:
        names = ", ".join(_PAYEE_TYPES)
        raise CommandError("payee_malformed", f"payee {text[:40]!r} should be TYPE:VALUE with a type of {names}")
    return _PAYEE_TYPES[kind], value
