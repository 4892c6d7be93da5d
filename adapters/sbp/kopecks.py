"""Roubles of QP, as text, to kopecks: the edge at which amounts are converted. Pure."""

from typing import Final

from adapters.runtime import errors
from schemas.money import AmountError, currency_of, to_minor

RUB: Final = currency_of("RUB")


def kopecks(text: str, evidence: str) -> int:
    """Return the kopecks of an answer's amount. Raises ProtocolViolation where it is none."""
    try:
        return to_minor(text, RUB)
    except AmountError as error:
        raise errors.ProtocolViolation("the answer's amount is no amount", evidence=evidence) from error
