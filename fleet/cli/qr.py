"""`fleet qr`: read and write Thai payment codes. Nothing is sent or paid."""

from typing import Annotated, Any

import typer

from adapters.promptpay.barcode import decode_barcode
from adapters.promptpay.emvco import decode as decode_payment
from adapters.promptpay.emvco import encode_bill_payment, encode_credit_transfer, satang
from adapters.promptpay.proxies import ProxyType
from adapters.promptpay.slip import decode_slip
from adapters.promptpay.tlv import QrError
from fleet.cli.output import CommandError, JsonFlag, print_fields, print_json

app = typer.Typer(help="Thai payment codes: PromptPay and bill QR, bank slips, bill barcodes.", no_args_is_help=True)

_SLIP_CHECKSUM = "9104"


@app.command()
def decode(
    payload: Annotated[str, typer.Argument(help="The code's text; \\r may be written as backslash and r.")],
    as_json: JsonFlag = False,
) -> None:
    """Show what a code says. Recognises payment QR, bank slips and bill barcodes."""
    try:
        fields = _fields(payload)
    except QrError as error:
        raise CommandError(error.code, str(error)) from error
    if as_json:
        print_json(fields)
    else:
        print_fields("code", fields)


@app.command()
def encode(
    mobile: Annotated[str | None, typer.Option(help="Mobile number, such as 0812345678.")] = None,
    national_id: Annotated[str | None, typer.Option(help="National or tax id, 13 digits.")] = None,
    ewallet: Annotated[str | None, typer.Option(help="E-wallet id, 15 digits.")] = None,
    bank_account: Annotated[str | None, typer.Option(help="Bank code, then account number.")] = None,
    biller: Annotated[str | None, typer.Option(help="Biller id, 15 digits; needs --ref1.")] = None,
    ref1: Annotated[str | None, typer.Option(help="The bill's first reference.")] = None,
    ref2: Annotated[str | None, typer.Option(help="The bill's second reference.")] = None,
    amount: Annotated[str | None, typer.Option(help="Baht, such as 125.50; left out, the payer chooses.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the QR text of one payee: exactly one of the payee options, or --biller."""
    proxies = (
        (ProxyType.MOBILE, mobile),
        (ProxyType.NATIONAL_ID, national_id),
        (ProxyType.EWALLET, ewallet),
        (ProxyType.BANK_ACCOUNT, bank_account),
    )
    payees = [(kind, text) for kind, text in proxies if text is not None]
    if len(payees) + (biller is not None) != 1:
        raise CommandError(
            "payee_ambiguous", "give exactly one of --mobile, --national-id, --ewallet, --bank-account, --biller"
        )
    if biller is None and (ref1, ref2) != (None, None):
        raise CommandError("bill_reference_unused", "--ref1 and --ref2 belong to --biller")
    if biller is not None and ref1 is None:
        raise CommandError("bill_reference_missing", "a bill needs --ref1")
    try:
        amount_minor = None if amount is None else satang(amount)
        if biller is not None and ref1 is not None:
            payload = encode_bill_payment(biller, ref1, ref2, amount_minor=amount_minor)
        else:
            payload = encode_credit_transfer(*payees[0], amount_minor=amount_minor)
    except QrError as error:
        raise CommandError(error.code, str(error)) from error
    if as_json:
        print_json({"payload": payload})
    else:
        typer.echo(payload)


def _fields(payload: str) -> dict[str, Any]:
    if payload.startswith("|"):
        # A shell cannot easily pass a carriage return, so its two-character spelling is taken too.
        return decode_barcode(payload.replace("\\r", "\r")).fields()
    # A payment code begins with its format, tag 00 of length 02; a slip's tag 00 is a longer template.
    if payload[-8:-4] == _SLIP_CHECKSUM and not payload.startswith("0002"):
        return decode_slip(payload).fields()
    return decode_payment(payload).fields()
