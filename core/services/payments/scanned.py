"""A payee that came as a scanned code: read once, before a payment is planned, and held to what it asks for."""

from typing import Any

from core.services.problems import Refusal
from core.services.terms.routes import mask_payee
from schemas.api import IntentRequest, ScannedPayee
from schemas.codes.payable import Payable, read_payable
from schemas.codes.tlv import QrError
from schemas.money import money_text
from schemas.permits import Payee

_FIELD = "payee.qr"


def read_scanned(request: IntentRequest) -> tuple[IntentRequest, Payable | None]:
    """Return the request with its payee named, and the code it came from.

    Raises Refusal: qr_not_payable, qr_malformed, qr_currency_differs, qr_amount_differs. No text of the code is quoted.
    """
    asked = request.payee
    if not isinstance(asked, ScannedPayee):
        return request, None
    try:
        code = read_payable(asked.qr)
    except QrError as error:
        if error.code == "qr_not_payable":
            raise Refusal("qr_not_payable", str(error), field=_FIELD) from error
        raise Refusal("qr_malformed", f"{error.code}: scan the whole code again", field=_FIELD) from error
    if code.currency != request.currency:
        raise Refusal("qr_currency_differs", f"the code asks for {code.currency}", field="currency")
    if code.amount_minor not in (None, request.amount_minor):
        text = f"the code asks for {money_text(code.amount_minor or 0, code.currency)}"
        raise Refusal("qr_amount_differs", text, field="amount_minor")
    return request.model_copy(update={"payee": Payee(type=code.payee_type, value=code.payee_value)}), code


def shown_parts(code: Payable) -> dict[str, Any]:
    """Return what is kept and shown of a code, in the shape of `schemas.api.QrParts`: its references masked."""
    return {
        "kind": code.kind,
        "amount_minor": code.amount_minor,
        "currency": code.currency,
        "one_time": code.one_time,
        "merchant_name": code.merchant_name,
        "biller_id": code.biller_id,
        "ref1_masked": None if code.ref1 is None else mask_payee(code.ref1),
        "ref2_masked": None if code.ref2 is None else mask_payee(code.ref2),
    }
