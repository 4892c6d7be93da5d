"""Adapters and workers are killed around refunds of what was collected: each is paid back once, none is lost."""

import asyncio
import time
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from fleet.demo.payments_file import PaymentLine
from schemas.api import BatchItem, IntentRequest
from schemas.events import TERMINAL_STATES, IntentState
from schemas.operations import OperationType
from tests.chaos.conftest import Fleet
from tests.support.selection import mostly_long

STEPS = [
    "api.after_commit",
    "relay.after_xadd",
    "permits.after_commit",
    "adapter.after_permit",
    "adapter.during_call",
    "adapter.after_call",
    "adapter.after_publish",
    "settler.before_commit",
    "settler.after_commit",
]

_DECIDED = TERMINAL_STATES | {IntentState.UNRESOLVED}
_PARKED_S = 20.0
"""How long a parked refund is waited for: nothing buries one that never arrived, so a slow machine may park it."""


def top_ups(count: int) -> list[PaymentLine]:
    """Top-ups over both rails that pay back."""
    return [
        PaymentLine(
            line=place,
            reference=f"in-{uuid4().hex[:12]}",
            wallet=f"in-{place % 2}",
            payee_type="topup",
            payee="a payer",
            amount_minor=10_000 + place,
            currency=("THB", "RUB")[place % 2],
            message="",
        )
        for place in range(count)
    ]


async def ended(fleet: Fleet, intents: list[UUID]) -> list[str]:
    """Wait until each intent has ended, or is parked for long; return how."""
    async with asyncio.timeout(90):
        begun_s = time.monotonic()
        while True:
            states = [(await fleet.client.get_intent(each)).state for each in intents]
            patient = time.monotonic() - begun_s < _PARKED_S
            if (TERMINAL_STATES if patient else _DECIDED).issuperset(states):
                return [str(state) for state in states]
            await asyncio.sleep(0.2)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("step", mostly_long(STEPS, "adapter.after_call"))
async def test_a_kill_around_a_refund_pays_it_back_once(fleet: Fleet, step: str) -> None:
    run = await fleet.send(top_ups(6))
    assert (run.ends["SETTLED"], run.refused) == (6, []), run
    originals = [await fleet.client.get_intent(each) for each in sorted(run.accepted)]
    # Two parts of each: together they are the whole.
    items = [
        BatchItem(
            idempotency_key=f"back-{original.id}-{part}",
            intent=IntentRequest(
                operation=OperationType.REFUND,
                original_intent_id=original.id,
                wallet_id=original.wallet_id,
                amount_minor=(4_000, original.amount_minor - 4_000)[part],
                currency=original.currency,
            ),
        )
        for original in originals
        for part in range(2)
    ]
    restarts = fleet.stack.supervisor.restarts.total()
    fleet.stack.arm(step)
    answers = await fleet.client.create_intents(items)
    refunds = [answer.intent.id for answer in answers if answer.intent is not None]
    assert len(refunds) == len(items), answers
    assert await fleet.until_struck(step), f"{step} was never reached: the test would prove nothing"
    ends = dict(zip(refunds, await ended(fleet, refunds), strict=True))
    assert fleet.stack.supervisor.restarts.total() > restarts
    async with fleet.database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT intent_id, reference FROM fleet.jobs WHERE intent_id = ANY ($1::uuid[]) AND kind = 'refund'",
            refunds,
        )
    assert len(rows) == len(items)
    # What a slow machine did not send in time is voided, or parked; what is parked may be paid back already.
    state_of = {row["reference"]: ends[row["intent_id"]] for row in rows}
    proof = await fleet.proof()
    undecided = [each for each in proof.paid_not_settled if state_of.get(each) != "UNRESOLVED"]
    assert replace(proof, paid_not_settled=undecided).holds, (proof, state_of)
    assert {"SETTLED", "UNRESOLVED"}.intersection(state_of.values()), state_of
