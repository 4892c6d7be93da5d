"""What providers say about a reference beside its status: that they have it already, or have never seen it."""

from collections.abc import Awaitable
from typing import TypeVar

from adapters.runtime.errors import AdapterError, Indeterminate
from adapters.runtime.port import Outcome
from schemas.results import Basis, Verdict

T = TypeVar("T")


class ReferenceUnknown(Exception):  # noqa: N818 - an answer, not a failure
    """The provider has never seen the reference. It says nothing about a request that is still on its way."""

    def __init__(self, evidence: str) -> None:
        super().__init__("reference unknown")
        self.evidence = evidence

    def outcome(self) -> Outcome:
        """Return what it means where the status of the reference was asked for."""
        return Outcome(Verdict.NOT_FOUND, evidence=self.evidence, basis=Basis.REFERENCE_STATUS)


class ReferenceTaken(Exception):  # noqa: N818 - an answer, not a failure
    """The reference exists already: the first request arrived. Ask for its status."""


async def status_of_existing(question: Awaitable[T]) -> T:
    """Return the answer to a question about a reference that the provider says it has.

    Raises Indeterminate where the question fails: that says nothing about the money.
    """
    try:
        return await question
    except (AdapterError, ReferenceUnknown) as error:
        raise Indeterminate(
            "the reference exists, its status was not told", reason="status_not_told", evidence=error.evidence
        ) from error
