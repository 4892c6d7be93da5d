"""Fault scripts of the provider simulators: what goes wrong, for whom, how often.

"before" means before the payment is executed, "after" means after it: the money has moved and the answer is lost.
"""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """The faults that a simulator can be told to show."""

    PAYEE_NOT_FOUND = "payee_not_found"
    TIMEOUT_BEFORE = "timeout_before"
    TIMEOUT_AFTER = "timeout_after"
    ERROR_BEFORE = "error_before"
    ERROR_AFTER = "error_after"
    GARBAGE_AFTER = "garbage_after"
    UNKNOWN_STATUS_AFTER = "unknown_status_after"
    RESET_BEFORE = "reset_before"
    RESET_AFTER = "reset_after"
    DUPLICATE_AFTER = "duplicate_after"
    SLOW_SETTLE = "slow_settle"
    THROTTLED = "throttled"
    DECLINED = "declined"
    REFUSED = "refused"
    LATE_CALLBACK = "late_callback"
    INQUIRY_TIMEOUT = "inquiry_timeout"
    INQUIRY_ERROR = "inquiry_error"
    INQUIRY_GARBAGE = "inquiry_garbage"
    CANCEL_TIMEOUT = "cancel_timeout"
    CANCEL_ERROR = "cancel_error"
    CANCEL_GARBAGE = "cancel_garbage"


MEANS: Final[Mapping[Fault, str]] = {
    Fault.PAYEE_NOT_FOUND: "nobody is known by this payee",
    Fault.TIMEOUT_BEFORE: "no answer, and nothing was paid",
    Fault.TIMEOUT_AFTER: "it was paid, and the answer never comes",
    Fault.ERROR_BEFORE: "a server error, and nothing was paid",
    Fault.ERROR_AFTER: "it was paid, and a server error is the answer",
    Fault.GARBAGE_AFTER: "it was paid, and the answer is nonsense",
    Fault.UNKNOWN_STATUS_AFTER: "it was paid, and the answer has a status that nobody knows",
    Fault.RESET_BEFORE: "the connection breaks, and nothing was paid",
    Fault.RESET_AFTER: "it was paid, and the connection breaks before the answer",
    Fault.DUPLICATE_AFTER: "it was paid, and the answer says that the reference was there before",
    Fault.SLOW_SETTLE: "it is taken, and paid a while later",
    Fault.THROTTLED: "too many requests: later",
    Fault.DECLINED: "the payment is declined",
    Fault.REFUSED: "the request is refused before anything is taken",
    Fault.LATE_CALLBACK: "it is paid, and told of late",
    Fault.INQUIRY_TIMEOUT: "who asks for a status gets no answer",
    Fault.INQUIRY_ERROR: "who asks for a status gets a server error",
    Fault.INQUIRY_GARBAGE: "who asks for a status gets nonsense",
    Fault.CANCEL_TIMEOUT: "it was cancelled, and the answer never comes",
    Fault.CANCEL_ERROR: "it was cancelled, and a server error is the answer",
    Fault.CANCEL_GARBAGE: "it was cancelled, and the answer is nonsense",
}
"""What each fault does, in a line."""

INQUIRY_FAULTS: Final = frozenset({Fault.INQUIRY_TIMEOUT, Fault.INQUIRY_ERROR, Fault.INQUIRY_GARBAGE})
"""Faults that strike who asks for the status of a payment, a code, an order or a refund."""
CANCEL_FAULTS: Final = frozenset({Fault.CANCEL_TIMEOUT, Fault.CANCEL_ERROR, Fault.CANCEL_GARBAGE})
"""Faults that strike who cancels."""
PAYMENT_FAULTS: Final = frozenset(Fault) - INQUIRY_FAULTS - CANCEL_FAULTS
"""Faults that strike the call that moves money, or asks for it."""

FATES: Final = (
    Fault.PAYEE_NOT_FOUND,
    Fault.TIMEOUT_AFTER,
    Fault.TIMEOUT_BEFORE,
    Fault.ERROR_BEFORE,
    Fault.ERROR_AFTER,
    Fault.GARBAGE_AFTER,
    Fault.SLOW_SETTLE,
    Fault.DECLINED,
    Fault.RESET_AFTER,
    Fault.RESET_BEFORE,
    Fault.DUPLICATE_AFTER,
    Fault.THROTTLED,
)
"""What happens to the first, the second … payee whose fate is fixed: the same place at every provider."""

PERSISTENT = frozenset({Fault.PAYEE_NOT_FOUND, Fault.DECLINED, Fault.REFUSED, Fault.SLOW_SETTLE, Fault.LATE_CALLBACK})
"""Faults that are true of the payee; the others strike a reference once, so that a repeat finds the truth."""


@dataclass(slots=True)
class Script:
    """One rule: payee, reference and amount match where given, `probability` draws from the seeded generator."""

    fault: Fault
    payee: str | None = None
    reference: str | None = None
    probability: float = 1.0
    times: int | None = None
    """How often it strikes in all; None without end."""
    amount_minor: int | None = None

    def matches(self, payee: str, reference: str, amount_minor: int | None = None) -> bool:
        """Whether the rule is about this request."""
        return (
            self.payee in (None, payee)
            and self.reference in (None, reference)
            and self.amount_minor in (None, amount_minor)
        )


def fixed_fates(payee: str) -> dict[str, Fault]:
    """Return who has which fate, where `payee` is written with the number's place, as `08999900{:02d}`."""
    return {payee.format(number): fault for number, fault in enumerate(FATES, 1)}


def scripts_of(fates: Mapping[str, Fault]) -> list[Script]:
    """Return the rules by which each of these payees meets its fate."""
    return [Script(fault, payee=payee) for payee, fault in fates.items()]


@dataclass(slots=True)
class FaultScripts:
    """The rules in force. The same seed and the same order of requests give the same faults."""

    seed: int = 0
    scripts: list[Script] = field(default_factory=list)
    _struck: Counter[tuple[Fault, str]] = field(default_factory=Counter)
    _random: random.Random = field(init=False)
    _built_in: list[Script] = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - repeatable on purpose
        self._built_in = [replace(script) for script in self.scripts]

    def clear(self) -> None:
        """Forget what was added: the payees whose fate is fixed keep it."""
        self.scripts[:] = [replace(script) for script in self._built_in]

    def due(self, payee: str, reference: str, among: frozenset[Fault], amount_minor: int | None = None) -> Fault | None:
        """Return the fault that strikes this request now, if any, and count it."""
        for script in self.scripts:
            if script.fault not in among or not script.matches(payee, reference, amount_minor) or script.times == 0:
                continue
            if script.fault not in PERSISTENT and self._struck[script.fault, reference]:
                continue
            if script.probability < 1 and self._random.random() >= script.probability:
                continue
            self._struck[script.fault, reference] += 1
            if script.times is not None:
                script.times -= 1
            return script.fault
        return None
