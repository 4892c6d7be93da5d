"""QP's register of a Moscow day as lines that the core compares. Pure but for the client's calls."""

from collections.abc import AsyncIterator, Sequence
from datetime import date
from functools import partial
from typing import Final

from adapters.runtime import errors
from adapters.runtime.registers import pages
from adapters.sbp.client import QpClient
from adapters.sbp.kopecks import RUB, kopecks
from adapters.sbp.models import RegisterItem, RegisterKind
from schemas.registers import RegisterDirection, RegisterLine, RegisterOperation, RegisterStatus

_MEANS: Final = {
    RegisterKind.PAYOUT: (RegisterOperation.PAYMENT, RegisterDirection.OUT),
    RegisterKind.PAYMENT: (RegisterOperation.PAYMENT, RegisterDirection.IN),
    RegisterKind.REFUND: (RegisterOperation.REFUND, RegisterDirection.OUT),
}
_STATUSES: Final = {
    "COMPLETED": RegisterStatus.SETTLED,
    "SUCCESS": RegisterStatus.SETTLED,
    "IN_PROGRESS": RegisterStatus.PENDING,
    "PENDING": RegisterStatus.PENDING,
    "DECLINED": RegisterStatus.FAILED,
}


def register(client: QpClient, day: date) -> AsyncIterator[Sequence[RegisterLine]]:
    """Yield the register page by page. Raises RegisterAbsent and the runtime's errors."""
    return pages(partial(client.register, day), "", line_of)


def line_of(item: RegisterItem) -> RegisterLine:
    """Return one line as the core compares it. Raises ProtocolViolation."""
    told = item.model_dump_json()
    try:
        operation, direction = _MEANS[RegisterKind(item.type)]
        return RegisterLine(
            line=item.line,
            provider_ref=item.transaction_id,
            our_ref=item.reference,
            operation=operation,
            direction=direction,
            amount_minor=kopecks(item.amount, told),
            fee_minor=kopecks(item.fee, told) if item.fee.strip("0.") else 0,
            currency=RUB.code,
            status=_STATUSES[item.status],
            at=item.date,
        )
    except (KeyError, ValueError) as error:
        raise errors.ProtocolViolation("a line that the contract does not know", evidence=told) from error
