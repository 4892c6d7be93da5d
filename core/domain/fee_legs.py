"""The movements of a fee, as they are kept with the intent whose chain they are part of. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from schemas.fees import FeePhase


@dataclass(frozen=True, slots=True)
class FeeAccount:
    """Where a share goes: a wallet, or the tenant's own account of this code and qualifier."""

    code: str
    qualifier: str = ""
    wallet_id: UUID | None = None


class FeeLeg(NamedTuple):
    """One movement of a fee, in minor units, and the version of the rule that asks for it.

    A tuple, as all that is made for each payment: that takes a third of the time.
    """

    name: str
    phase: FeePhase
    account: FeeAccount
    amount_minor: int
    rule_id: UUID
    rule_version: int


def sum_minor(legs: Iterable[FeeLeg], phase: FeePhase) -> int:
    """Return the sum of the legs of a phase, in minor units."""
    total_minor = 0
    for leg in legs:  # asked many times of each payment: a generator would cost three times as much
        if leg.phase is phase:
            total_minor += leg.amount_minor
    return total_minor


def plain_legs(legs: Sequence[FeeLeg]) -> list[dict[str, Any]]:
    """Return the legs as plain values, in the shape of `schemas.fees.FeeLegView`."""
    return [
        {
            "name": name,
            "phase": _PHASE_TEXTS[phase],
            "code": account.code,
            "qualifier": account.qualifier,
            "wallet_id": None if account.wallet_id is None else str(account.wallet_id),
            "amount_minor": amount_minor,
            "rule_id": _text_of(rule_id),
            "rule_version": rule_version,
        }
        for name, phase, account, amount_minor, rule_id, rule_version in legs
    ]


_PHASE_TEXTS: Final = {phase: phase.value for phase in FeePhase}


@lru_cache(maxsize=4096)  # The same few rules in every payment.
def _text_of(rule_id: UUID) -> str:
    return str(rule_id)


def legs_of_plain(plain: Iterable[Mapping[str, Any]]) -> tuple[FeeLeg, ...]:
    """Return the legs that `plain_legs` made these values of."""
    return tuple(
        FeeLeg(
            name=leg["name"],
            phase=FeePhase(leg["phase"]),
            account=FeeAccount(
                leg["code"], leg["qualifier"], None if leg["wallet_id"] is None else UUID(leg["wallet_id"])
            ),
            amount_minor=leg["amount_minor"],
            rule_id=UUID(leg["rule_id"]),
            rule_version=leg["rule_version"],
        )
        for leg in plain
    )
