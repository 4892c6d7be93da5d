"""The arithmetic of fees: a rate with named rounding, and a split that loses nothing. Integers alone. Pure."""

from collections.abc import Sequence
from typing import Final

from schemas.fees import Rounding

_BASIS: Final = 10_000


def rounded_quotient(dividend: int, divisor: int, rounding: Rounding) -> int:
    """Return dividend / divisor as a whole number; dividend >= 0, divisor > 0. UP is away from zero."""
    whole, rest = divmod(dividend, divisor)
    if rest == 0 or rounding is Rounding.DOWN:
        return whole
    if rounding is Rounding.UP:
        return whole + 1
    if rounding is Rounding.HALF_UP:
        return whole + (2 * rest >= divisor)
    return whole + (2 * rest > divisor or (2 * rest == divisor and whole % 2 == 1))


def rate(amount_minor: int, fixed_minor: int, basis_points: int, rounding: Rounding) -> int:
    """Return the fixed part plus basis points of the amount, in minor units, rounded once."""
    return fixed_minor + rounded_quotient(amount_minor * basis_points, _BASIS, rounding)


def split(fee_minor: int, parts: Sequence[int]) -> list[int]:
    """Divide a fee by parts so that the shares sum to it exactly.

    Each share is rounded down; the units that remain go one each to the largest remainders, of equals to the first.
    """
    whole = sum(parts)
    shares = [fee_minor * part // whole for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda place: -(fee_minor * parts[place] % whole))
    for place in by_remainder[: fee_minor - sum(shares)]:
        shares[place] += 1
    return shares
