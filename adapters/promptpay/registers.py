"""The register of a Bangkok day at IPPS as lines that the core compares. Pure but for the client's calls."""

from collections.abc import AsyncIterator, Sequence
from datetime import date
from functools import partial
from typing import Final

from adapters.promptpay.client import IppsClient
from adapters.promptpay.models import RegisterItem, RegisterKind
from adapters.runtime import errors
from adapters.runtime.registers import pages
from schemas.money import AmountError, currency_of, to_minor
from schemas.registers import RegisterDirection, RegisterLine, RegisterOperation, RegisterStatus

_THB: Final = currency_of("THB")
_MEANS: Final = {
    RegisterKind.TRANSFER: (RegisterOperation.PAYMENT, RegisterDirection.OUT),
    RegisterKind.QR_PAYMENT: (RegisterOperation.PAYMENT, RegisterDirection.IN),
    RegisterKind.QR_RETURN: (RegisterOperation.RETURN, RegisterDirection.OUT),
    RegisterKind.REFUND: (RegisterOperation.REFUND, RegisterDirection.OUT),
}
_STATUSES: Final = {
    "SUCCEEDED": RegisterStatus.SETTLED,
    "PROCESSING": RegisterStatus.PENDING,
    "FAILED": RegisterStatus.FAILED,
    "REFUNDED": RegisterStatus.RETURNED,
}


def register(client: IppsClient, day: date) -> AsyncIterator[Sequence[RegisterLine]]:
    """Yield the register page by page. Raises RegisterAbsent and the runtime's errors."""
    return pages(partial(client.register, day), 0, _line)


def _line(item: RegisterItem) -> RegisterLine:
    told = item.model_dump_json()
    try:
        operation, direction = _MEANS[RegisterKind(item.type)]
        return RegisterLine(
            line=item.line,
            provider_ref=item.psp_txid,
            our_ref=item.client_ref,
            operation=operation,
            direction=direction,
            amount_minor=to_minor(item.amount, _THB),
            fee_minor=to_minor(item.fee, _THB) if item.fee.strip("0.") else 0,
            currency=_THB.code,
            status=_STATUSES[item.status],
            at=item.at,
        )
    except (KeyError, ValueError, AmountError) as error:
        raise errors.ProtocolViolation("a line that the contract does not know", evidence=told) from error
