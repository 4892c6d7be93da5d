"""What is never sent, whatever the permit says."""

from uuid import UUID

import pytest

from adapters.noop.adapter import NoopRail, NoopSettings
from adapters.runtime.execution import Executor
from adapters.runtime.port import Order, Outcome
from adapters.runtime.timing import clock_s
from schemas.operations import JobKind
from schemas.permits import Granted, Instruction, PermitMode
from schemas.rails import Timing
from schemas.results import Verdict


class _Watched(NoopRail):
    """A rail that counts what reaches it."""

    def __init__(self) -> None:
        super().__init__(Timing(send_by_s=5, call_total_s=10, claim_idle_s=60), NoopSettings())
        self.reached = 0

    async def pay(self, order: Order) -> Outcome:
        self.reached += 1
        return await super().pay(order)

    async def inquire(self, order: Order) -> Outcome:
        self.reached += 1
        return await super().inquire(order)


def _granted(kind: JobKind, mode: PermitMode, account: str) -> Granted:
    return Granted(
        job_id=UUID(int=1), kind=kind, mode=mode, fence=1, first=True, send_by_s=5, reference="R" * 24,
        amount_minor=100, currency="THB", provider_account=account, instruction=Instruction(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "mode", "verdict"),
    [
        (JobKind.PAY, PermitMode.SEND, Verdict.NOT_SENT),
        (JobKind.PAY, PermitMode.INQUIRE_ONLY, Verdict.UNKNOWN),
        (JobKind.INQUIRE, PermitMode.READ, Verdict.UNKNOWN),
    ],
)
async def test_an_order_of_another_provider_account_never_reaches_the_provider(
    kind: JobKind, mode: PermitMode, verdict: Verdict
) -> None:
    rail = _Watched()
    executor = Executor(rail, "noop", 10)
    executed = await executor.execute(_granted(kind, mode, "the account of before"), clock_s())
    assert (executed.outcome.verdict, executed.outcome.reason) == (verdict, "other_account")
    assert rail.reached == 0
    await executor.execute(_granted(kind, mode, rail.registration().provider_account), clock_s())
    assert rail.reached == 1
