"""The one place where an outcome or an error of a rail becomes a verdict. Pure.

A submission's refusal speaks for its own fence. A question (inquiry, cancel, or a permit that allows no more
than asking) that fails says nothing about the money: UNKNOWN. A lookup moves no money, so it is simply
repeated.
"""

from enum import Enum
from typing import Final

from adapters.runtime import errors
from adapters.runtime.port import Outcome
from schemas.operations import JobKind
from schemas.permits import PermitMode
from schemas.results import Basis, Verdict

RETRY_S: Final = 1.0
"""How soon the core may dispatch again what was provably not sent."""
MISCONFIGURED_RETRY_S: Final = 60.0


class Action(Enum):
    """What is done at the provider."""

    SUBMIT = "submit"
    INQUIRE = "inquire"
    CANCEL = "cancel"
    LOOKUP = "lookup"


_BASIS: Final = {
    Action.SUBMIT: Basis.SUBMISSION,
    Action.INQUIRE: Basis.REFERENCE_STATUS,
    Action.CANCEL: Basis.REFERENCE_STATUS,
    Action.LOOKUP: Basis.LOOKUP,
}

_STATUSES: Final = frozenset(
    {
        Verdict.SUCCEEDED,
        Verdict.DECLINED,
        Verdict.CANCELLED,
        Verdict.PENDING,
        Verdict.UNKNOWN,
        Verdict.NOT_FOUND,
        Verdict.RETURNED,
        Verdict.AWAITING_PAYMENT,
        Verdict.PAID,
        Verdict.EXPIRED,
    }
)
_POSSIBLE: Final = {
    Action.SUBMIT: (_STATUSES - {Verdict.NOT_FOUND}) | {Verdict.NOT_SENT},
    Action.INQUIRE: _STATUSES,
    Action.CANCEL: _STATUSES,
    Action.LOOKUP: frozenset({Verdict.FOUND, Verdict.DECLINED, Verdict.NOT_SENT}),
}


def action_of(kind: JobKind, mode: PermitMode) -> Action:
    """Return what a permit allows to be done for a job of this kind."""
    if kind is JobKind.LOOKUP:
        return Action.LOOKUP
    if kind is JobKind.CANCEL:
        return Action.CANCEL
    if kind is JobKind.INQUIRE or mode is not PermitMode.SEND:
        return Action.INQUIRE
    return Action.SUBMIT


def basis_of(action: Action, outcome: Outcome) -> Basis:
    """Return how the verdict was learned."""
    return outcome.basis or _BASIS[action]


def checked(action: Action, outcome: Outcome) -> Outcome:
    """Return the outcome; raise ProtocolViolation where the action cannot have that verdict."""
    if outcome.verdict not in _POSSIBLE[action]:
        raise errors.ProtocolViolation(f"{action.value} cannot answer {outcome.verdict}", evidence=outcome.evidence)
    return outcome


def of_error(action: Action, error: BaseException) -> Outcome:
    """Return what is known after `error`. Anything that is not classified may have executed."""
    evidence = error.evidence if isinstance(error, errors.AdapterError) else ""
    if action in (Action.INQUIRE, Action.CANCEL):
        return Outcome(Verdict.UNKNOWN, reason=_reason(error), retry_after_s=_wait_s(error), evidence=evidence)
    if isinstance(error, errors.Rejected):
        return Outcome(Verdict.DECLINED, reason=error.code, evidence=evidence)
    if isinstance(error, errors.NotSent | errors.Misconfigured) or action is Action.LOOKUP:
        wait_s = _wait_s(error) or RETRY_S
        return Outcome(Verdict.NOT_SENT, reason=_reason(error), retry_after_s=wait_s, evidence=evidence)
    return Outcome(Verdict.UNKNOWN, reason=_reason(error), evidence=evidence)


def _wait_s(error: BaseException) -> float | None:
    if isinstance(error, errors.NotSent) and error.after_s is not None:
        return max(0.0, min(float(error.after_s), 86_400.0))
    return MISCONFIGURED_RETRY_S if isinstance(error, errors.Misconfigured) else None


def _reason(error: BaseException) -> str:
    if isinstance(error, errors.NotSent | errors.Indeterminate):
        return error.reason
    if isinstance(error, errors.Misconfigured):
        return "misconfigured"
    if isinstance(error, errors.Rejected):
        return "question_rejected"
    return "call_timed_out" if isinstance(error, TimeoutError) else "indeterminate"
