"""Claims: a provider's transaction pays one payment of ours, whoever tells of it and how often."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from core.domain.jobs import JobRow
from core.domain.verdicts import Case, Decision, Step
from schemas.results import Result

TAKEN: Final = "transaction_of_another"
"""Why a fact does not count whose transaction paid another payment."""
_SETTLING: Final = frozenset({Step.POST, Step.RETURN, Step.SUSPEND})


class TransactionTakenError(RuntimeError):
    """A transaction is another payment's, which was not seen before; nothing may commit."""


class Claimant(NamedTuple):
    """Whom a transaction paid."""

    tenant_id: UUID
    intent_id: UUID

    def told_to(self, tenant_id: UUID) -> str:
        """Return who it is, in words for a tenant: payments of another tenant are not named."""
        return f"payment {self.intent_id}" if self.tenant_id == tenant_id else "another tenant's payment"


class Claims(Protocol):
    """Where it is kept who was paid by what."""

    async def claim(self, uow: Any, claims: Mapping[bytes, Claimant]) -> None:
        """Keep them with the commit. Raises TransactionTakenError, now or then, where one is kept already."""
        ...

    async def claimants(self, uow: Any, claims: Sequence[bytes]) -> dict[bytes, Claimant]:
        """Return whom these transactions paid; those that paid nobody are absent."""
        ...


def claim_of(job: JobRow, transaction_id: str) -> bytes:
    """Return the key of a transaction: unique in a provider account for its kind of job.

    Refunds are told apart from payments: providers number them for themselves.
    """
    parts = (job.rail, job.provider_account, job.environment, job.kind, transaction_id)
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).digest()


@dataclass(slots=True)
class BatchClaims:
    """The transactions of a batch: whom they paid before it, as far as that was asked, and whom they pay by it."""

    before: dict[bytes, Claimant] = field(default_factory=dict)
    made: dict[bytes, Claimant] = field(default_factory=dict)

    def judge(self, case: Case, decision: Decision, result: Result) -> Decision:
        """Return the decision, or a quarantine where it would settle a payment by what paid another.

        What names no transaction claims none; what came back of a settled payment was claimed when it was settled.
        """
        if not result.provider_tx_id or decision.step not in _SETTLING:
            return decision
        if decision.step is Step.RETURN and case.decided:
            return decision
        job, claim = case.job, claim_of(case.job, result.provider_tx_id)
        claimant = Claimant(job.tenant_id, job.intent_id)
        paid = self.before.get(claim) or self.made.setdefault(claim, claimant)
        if paid == claimant:
            return decision
        detail = f"{result.provider_tx_id} paid {paid.told_to(job.tenant_id)}"
        return Decision(Step.QUARANTINE, TAKEN, detail=detail)
