"""What a permit's answer is written as: by other means than its model's own, and read by the model."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from asyncpg.pgproto import pgproto

from core.api.answers import contracts_answer
from schemas.operations import JobKind, OperationType
from schemas.permits import (
    Closed,
    Granted,
    Instruction,
    LookupBinding,
    NotFound,
    Payee,
    PermitAnswer,
    PermitMode,
    PermitResponse,
    Wait,
)

JOB = UUID(int=7)
AT = datetime(2026, 11, 22, 1, 2, 3, 456, tzinfo=UTC)


def _granted(job_id: UUID, instruction: Instruction) -> Granted:
    return Granted.of_ours(
        answer="GRANTED", job_id=job_id, kind=JobKind.PAY, mode=PermitMode.SEND, fence=1, first=True, send_by_s=4.25,
        reference="R" * 16, amount_minor=10**15, currency="THB", provider_account="a", environment="sandbox",
        instruction=instruction,
    )  # fmt: skip


def _told(**changed: object) -> Instruction:
    every: dict[str, object] = {"payee": None, "message": "", "lookup": None, "target_reference": None}
    every |= {"target_kind": None, "operation": OperationType.PAYOUT, "expires_at": None}
    return Instruction.of_ours(**(every | changed))


ANSWERS: list[PermitAnswer] = [
    # An id as the database gives it is of a class of its own.
    _granted(pgproto.UUID(str(JOB)), _told(payee=Payee.of_ours(type="mobile", value="0812345678"), message='เช่า "1"')),
    _granted(JOB, _told(lookup=LookupBinding(lookup_id="L1", expires_at=AT, fee_minor=3), expires_at=AT)),
    _granted(JOB, _told(target_reference="T" * 16, target_kind=JobKind.REFUND)),
    Wait(answer="BUSY", job_id=JOB, after_s=0.5),
    Closed(job_id=JOB, reason="intent_decided"),
    NotFound(job_id=JOB),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda each: each.answer)
def test_each_answer_is_read_as_it_was_meant(answer: PermitAnswer) -> None:
    body = bytes(contracts_answer({"answers": [answer]}).body)
    read = PermitResponse.model_validate_json(body)
    assert read.answers == [answer]
    assert PermitResponse.model_construct(answers=[answer]).model_dump(mode="json") == read.model_dump(mode="json")


def test_what_is_made_without_a_check_has_every_field_that_the_model_has() -> None:
    for made in (ANSWERS[0], _told(), Payee.of_ours(type="mobile", value="1")):
        assert set(made.__dict__) == set(type(made).model_fields)
        assert made == type(made).model_validate(made.model_dump())
