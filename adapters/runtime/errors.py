"""Errors that say what we know about the money.

    AdapterError
    ├── Rejected(code)        refused for good                      → void
    ├── NotSent               it never left us                      → same job, same reference, later
    │   └── Throttled         refused unprocessed, after_s told     → later
    ├── Indeterminate         it may have been executed             → hold, inquire
    │   └── ProtocolViolation the answer is nonsense                → hold, inquire, alert
    └── Misconfigured         our own fault                         → not ready, stop consuming

What is not classified counts as Indeterminate as soon as a byte may have left.
"""

from typing import Final

import httpx

NO_CONNECTION: Final = "no_connection"
"""The reason of a NotSent whose provider could not be reached."""


class AdapterError(Exception):
    """Base of the tree. `evidence` is the raw answer, kept encrypted; the text is safe for logs."""

    def __init__(self, message: str, *, evidence: str = "") -> None:
        super().__init__(message)
        self.evidence = evidence


class Rejected(AdapterError):  # noqa: N818 - named by outcome
    """The provider refused for good; `code` is a stable code of ours, such as `payee_not_found`."""

    def __init__(self, code: str, message: str = "", *, evidence: str = "") -> None:
        super().__init__(message or code, evidence=evidence)
        self.code = code


class NotSent(AdapterError):  # noqa: N818 - named by outcome
    """Provably nothing left us, or nothing was taken: the same reference may be sent later."""

    def __init__(
        self, message: str, *, reason: str = "not_sent", after_s: float | None = None, evidence: str = ""
    ) -> None:
        super().__init__(message, evidence=evidence)
        self.reason = reason
        self.after_s = after_s


class Throttled(NotSent):
    """The provider refused the request unprocessed and may have said when to come back."""

    def __init__(self, message: str, *, after_s: float, evidence: str = "") -> None:
        super().__init__(message, reason="throttled", after_s=after_s, evidence=evidence)


class Indeterminate(AdapterError):  # noqa: N818 - named by outcome
    """It may have been executed; `reason` is a stable code of ours."""

    def __init__(self, message: str, *, reason: str = "indeterminate", evidence: str = "") -> None:
        super().__init__(message, evidence=evidence)
        self.reason = reason


class ProtocolViolation(Indeterminate):
    """The provider's answer is outside its contract."""

    def __init__(self, message: str, *, evidence: str = "") -> None:
        super().__init__(message, reason="protocol_violation", evidence=evidence)


class Misconfigured(AdapterError):  # noqa: N818 - named by outcome
    """Our credentials or addresses are wrong: nothing can work until a person mends them."""


def transport_error(error: httpx.HTTPError) -> NotSent | Indeterminate:
    """Classify what the HTTP client raised: only a connection that never came about counts as not sent."""
    name = type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        return NotSent(f"no connection: {name}", reason=NO_CONNECTION)
    if isinstance(error, httpx.UnsupportedProtocol):
        return NotSent(f"not a usable address: {name}", reason=NO_CONNECTION)
    return Indeterminate(f"no answer: {name}", reason="no_answer")
