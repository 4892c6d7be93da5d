"""What a simulated provider's register says about a day, and the scripts that make it differ from what happened."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from adapters.testkit.serving import Answer, Endpoint, respond
from schemas.registers import RegisterDirection, RegisterOperation, RegisterStatus

PAGE: Final = 1000
"""How many lines of a register come in one answer."""


@dataclass(frozen=True, slots=True)
class Movement:
    """One thing that happened, as the provider's book has it."""

    provider_ref: str
    our_ref: str
    operation: RegisterOperation
    direction: RegisterDirection
    amount_minor: int
    fee_minor: int
    at: datetime
    status: RegisterStatus = RegisterStatus.SETTLED


class Change(StrEnum):
    """How a register differs from what happened."""

    MISSING = "missing"
    """It does not tell of the payment."""
    EXTRA = "extra"
    """It tells of a payment that never was."""
    AMOUNT = "amount"
    FEE = "fee"
    STATUS = "status"
    """It says that the payment failed."""
    DUPLICATE = "duplicate"
    """It tells of the payment twice, under two names of the provider's."""
    LATE = "late"
    """It tells of the payment a day later."""


@dataclass(frozen=True, slots=True)
class RegisterScript:
    """One difference: about the payment of this reference, ours or the provider's; `by_minor` is how much."""

    change: Change
    reference: str
    by_minor: int = 1


@dataclass(slots=True)
class RegisterScripts:
    """The differences in force."""

    scripts: list[RegisterScript] = field(default_factory=list)

    def told(self, happened: Sequence[Movement], before: Sequence[Movement] = ()) -> list[Movement]:
        """Return what the register of a day says, where `before` is what happened the day before."""
        late = [each for each in before if self._scripts(each, Change.LATE)]
        lines = late + [line for each in happened for line in self._lines(each)]
        return lines + [_extra(script, happened) for script in self.scripts if script.change is Change.EXTRA]

    def _scripts(self, movement: Movement, *changes: Change) -> list[RegisterScript]:
        named = (movement.our_ref, movement.provider_ref)
        return [each for each in self.scripts if each.reference in named and (not changes or each.change in changes)]

    def _lines(self, movement: Movement) -> list[Movement]:
        lines = [movement]
        for script in self._scripts(movement):
            match script.change:
                case Change.MISSING | Change.LATE:
                    return []
                case Change.AMOUNT:
                    lines[0] = replace(lines[0], amount_minor=lines[0].amount_minor + script.by_minor)
                case Change.FEE:
                    lines[0] = replace(lines[0], fee_minor=lines[0].fee_minor + script.by_minor)
                case Change.STATUS:
                    lines[0] = replace(lines[0], status=RegisterStatus.FAILED)
                case Change.DUPLICATE if movement.direction is RegisterDirection.OUT:
                    lines.append(replace(movement, provider_ref=f"{movement.provider_ref}-2"))
                case Change.DUPLICATE:
                    lines.append(movement)
        return lines


def _extra(script: RegisterScript, happened: Sequence[Movement]) -> Movement:
    at = happened[0].at if happened else datetime.now().astimezone()
    return Movement(
        f"EX{script.reference}"[:40], script.reference, RegisterOperation.PAYMENT, RegisterDirection.OUT,
        script.by_minor, 0, at,
    )  # fmt: skip


def registers_endpoint(scripts: RegisterScripts) -> Endpoint:
    """Return the endpoint that lists the differences, adds one, or clears them all."""

    async def control(request: Request) -> Response:
        if request.method == "DELETE":
            scripts.scripts.clear()
        elif request.method == "POST":
            try:
                asked = orjson.loads(await request.body())
                scripts.scripts.append(RegisterScript(**{**asked, "change": Change(asked["change"])}))
            except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                text = f"{error}; changes: {', '.join(Change)}"
                return respond(Answer(422, {"code": "change_invalid", "message": text}))
        return respond(Answer(200, {"scripts": [asdict(script) for script in scripts.scripts]}))

    return control
