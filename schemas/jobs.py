"""The job as it travels on a stream: routing, amount and a masked payee. Never the payee itself."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from schemas.base import Contract
from schemas.money import MAX_AMOUNT_MINOR
from schemas.operations import JobKind, OperationType

RailName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,30}$")]
AmountMinor = Annotated[int, Field(strict=True, gt=0, le=MAX_AMOUNT_MINOR)]
CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]

JOB_TYPE = "job"


class Job(Contract):
    """One unit of work. The permit's amount and currency count: where this disagrees, nothing is sent."""

    job_id: UUID
    tenant_id: UUID
    intent_id: UUID
    rail: RailName
    provider: str
    operation: OperationType
    kind: JobKind
    amount_minor: AmountMinor
    currency: CurrencyCode
    payee_masked: str = ""
    deadline: datetime
    """After this moment the core decides without an adapter: a job read later is still asked a permit for."""
