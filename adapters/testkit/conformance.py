"""The conformance suite: what every rail with a simulator must pass before it may move money.

A rail's tests subclass RailConformance and give a `harness` fixture. The suite drives the rail through the
runtime's own executor, so what it certifies is the verdict that the core would receive. What the rail claims in its
registration is put to the test; callbacks, refunds, redeliveries and the end of the process are in modules beside this
one.
"""

# ruff: noqa: S101 - a suite asserts

import logging
import re
import uuid
from typing import Final, Protocol

import pytest

from adapters.runtime.execution import Executed, Executor
from adapters.runtime.port import Cancels, Collects, Inquires, LooksUp, PaysMany, Rail, ReceivesCallbacks, Refunds
from adapters.runtime.timing import check_timing, clock_s
from adapters.testkit.callback_conformance import CallbackConformance
from adapters.testkit.process_conformance import ProcessConformance
from adapters.testkit.redelivery_conformance import RedeliveryConformance
from adapters.testkit.refund_conformance import RefundConformance
from schemas.operations import JobKind, OperationType
from schemas.permits import Granted, Instruction, LookupBinding, Payee, PermitMode
from schemas.results import Basis, Verdict

_COLLECTS: Final = frozenset({OperationType.TOPUP, OperationType.DEPOSIT, OperationType.DIRECT_DEBIT})
_REFUSED: Final = frozenset({Verdict.DECLINED, Verdict.CANCELLED, Verdict.NOT_SENT})


class Harness(Protocol):
    """A rail beside its simulator, and the provider's own book."""

    rail: Rail
    payee: Payee
    currency: str
    secrets: list[str]
    """Texts that must never be logged: keys and payees."""

    async def prepare(self, amount_minor: int) -> LookupBinding | None:
        """Return the lookup that a payment of this amount needs, if the rail has lookups."""
        ...

    async def pays_but_never_answers(self, reference: str) -> None:
        """Script the simulator: this reference is paid and the answer is lost."""
        ...

    async def answers_an_unknown_status(self, reference: str) -> None:
        """Script the simulator: this reference is answered with a status outside the contract."""
        ...

    async def paid(self, reference: str) -> list[int]:
        """Return the amounts that the provider's own book shows as paid under the reference."""
        ...


def permit(
    harness: Harness,
    reference: str,
    amount_minor: int,
    lookup: LookupBinding | None,
    fence: int = 1,
    kind: JobKind = JobKind.PAY,
) -> Granted:
    """Return a permit as the core would grant it: the first sends, the later ones only ask."""
    return Granted(
        job_id=uuid.uuid4(),
        kind=kind,
        mode=PermitMode.SEND if fence == 1 else PermitMode.INQUIRE_ONLY,
        fence=fence,
        first=fence == 1,
        send_by_s=5,
        reference=reference,
        amount_minor=amount_minor,
        currency=harness.currency,
        provider_account=harness.rail.registration().provider_account,
        environment=harness.rail.registration().environment,
        instruction=Instruction(
            payee=None if kind.on_control_stream else harness.payee,
            message="conformance",
            lookup=lookup,
            target_reference=reference if kind.on_control_stream else None,
        ),
    )


class RailConformance(CallbackConformance, ProcessConformance, RedeliveryConformance, RefundConformance):
    """Subclass it as `Test…` beside a `harness` fixture."""

    async def _pay(self, harness: Harness, reference: str, amount_minor: int = 2_500, fence: int = 1) -> Executed:
        lookup = await harness.prepare(amount_minor)
        return await self._execute(harness, permit(harness, reference, amount_minor, lookup, fence))

    async def _execute(self, harness: Harness, granted: Granted) -> Executed:
        """Do it as a lane does: a payment goes by the rail's call for many, where it has one."""
        executor = _executor(harness)
        if executor.pays_together(granted):
            [executed] = await executor.execute_many([granted], clock_s())
            return executed
        return await executor.execute(granted, clock_s())

    async def test_the_same_reference_twice_is_one_payment(self, harness: Harness) -> None:
        reference = _reference(harness)
        granted = permit(harness, reference, 2_500, await harness.prepare(2_500))
        for _ in range(2):
            executed = await self._execute(harness, granted)
            assert executed.outcome.verdict is Verdict.SUCCEEDED
        assert await harness.paid(reference) == [2_500]

    async def test_a_time_out_after_acceptance_is_unknown_and_an_inquiry_settles_it(self, harness: Harness) -> None:
        reference = _reference(harness)
        await harness.pays_but_never_answers(reference)
        first = await self._pay(harness, reference)
        assert first.outcome.verdict is Verdict.UNKNOWN
        second = await self._pay(harness, reference, fence=2)
        assert second.outcome.verdict is Verdict.SUCCEEDED
        assert (second.outcome.basis or Basis.REFERENCE_STATUS) is Basis.REFERENCE_STATUS
        assert await harness.paid(reference) == [2_500]

    async def test_a_permit_to_ask_only_pays_nothing(self, harness: Harness) -> None:
        """What a redelivered payment is given, where nothing proves that its first permit was not used."""
        reference = _reference(harness)
        executed = await self._pay(harness, reference, fence=2)
        assert executed.outcome.verdict in (Verdict.NOT_FOUND, Verdict.UNKNOWN)
        assert await harness.paid(reference) == []

    async def test_an_unknown_status_is_never_a_success(self, harness: Harness) -> None:
        reference = _reference(harness)
        await harness.answers_an_unknown_status(reference)
        executed = await self._pay(harness, reference)
        assert executed.outcome.verdict in (Verdict.UNKNOWN, Verdict.PENDING)

    @pytest.mark.parametrize("amount_minor", [100, 101, 1_999, 2_000, 123_456])
    async def test_amounts_round_trip_exactly(self, harness: Harness, amount_minor: int) -> None:
        reference = _reference(harness)
        executed = await self._pay(harness, reference, amount_minor)
        assert executed.outcome.amount_minor == amount_minor
        assert await harness.paid(reference) == [amount_minor]

    async def test_what_the_rail_claims_it_has_the_methods_for(self, harness: Harness) -> None:
        registration = harness.rail.registration()
        for operation, can in registration.operations.items():
            assert isinstance(harness.rail, LooksUp) or not can.lookup, operation
            collects = operation in _COLLECTS
            assert isinstance(harness.rail, Collects if collects else Inquires) or not can.inquiry, operation
            assert isinstance(harness.rail, Collects if collects else Cancels) or not can.cancel_by_reference, operation
            assert isinstance(harness.rail, ReceivesCallbacks) or not can.callbacks, operation
            assert isinstance(harness.rail, Collects) or not collects, operation
            assert isinstance(harness.rail, Refunds) or operation is not OperationType.REFUND, operation
            assert can.min_amount_minor <= can.max_amount_minor, operation

    async def test_its_timing_obeys_the_protocol_and_its_examples_their_own_patterns(self, harness: Harness) -> None:
        registration = harness.rail.registration()
        check_timing(registration, batch=1, concurrency=1)
        for name, kind in registration.payee_types.items():
            assert re.fullmatch(kind.pattern, kind.example), name
        assert re.fullmatch(registration.payee_types[harness.payee.type].pattern, harness.payee.value)

    async def test_a_reference_that_was_never_seen_is_not_found_and_asking_pays_nothing(self, harness: Harness) -> None:
        if not isinstance(harness.rail, Inquires):
            pytest.skip("this rail answers no inquiries")
        reference = _reference(harness)
        asked = await self._execute(harness, permit(harness, reference, 2_500, None, kind=JobKind.INQUIRE))
        assert asked.outcome.verdict in (Verdict.NOT_FOUND, Verdict.UNKNOWN)
        assert await harness.paid(reference) == []

    async def test_a_cancelled_reference_is_never_paid_also_where_it_was_never_seen(self, harness: Harness) -> None:
        if not _buries(harness):
            pytest.skip("this rail cannot cancel by reference")
        reference = _reference(harness)
        sends = permit(harness, reference, 2_500, await harness.prepare(2_500))
        for _ in range(2):
            buried = await self._execute(harness, permit(harness, reference, 2_500, None, kind=JobKind.CANCEL))
            assert buried.outcome.verdict is Verdict.CANCELLED
        late = await self._execute(harness, sends)
        assert late.outcome.verdict in _REFUSED
        assert await harness.paid(reference) == []

    async def test_a_cancel_that_comes_too_late_says_that_it_was_paid(self, harness: Harness) -> None:
        if not _buries(harness):
            pytest.skip("this rail cannot cancel by reference")
        reference = _reference(harness)
        await self._pay(harness, reference)
        late = await self._execute(harness, permit(harness, reference, 2_500, None, kind=JobKind.CANCEL))
        assert late.outcome.verdict is Verdict.SUCCEEDED
        assert await harness.paid(reference) == [2_500]

    async def test_payments_in_one_call_are_each_made_once_and_answered_in_their_place(self, harness: Harness) -> None:
        if not isinstance(harness.rail, PaysMany):
            pytest.skip("this rail takes one payment a call")
        amounts, executor = [2_500, 2_501, 100, 123_456], _executor(harness)
        permits = [permit(harness, _reference(harness), each, await harness.prepare(each)) for each in amounts]
        for _ in range(2):
            executed = await executor.execute_many(permits, clock_s())
            assert [each.outcome.verdict for each in executed] == [Verdict.SUCCEEDED] * len(amounts)
            assert [each.outcome.amount_minor for each in executed] == amounts
        assert [await harness.paid(each.reference) for each in permits] == [[amount] for amount in amounts]

    async def test_nonsense_about_one_payment_of_a_call_makes_none_a_success_that_was_not_paid(
        self, harness: Harness
    ) -> None:
        if not isinstance(harness.rail, PaysMany):
            pytest.skip("this rail takes one payment a call")
        permits = [permit(harness, _reference(harness), 2_500, await harness.prepare(2_500)) for _ in range(3)]
        await harness.answers_an_unknown_status(permits[1].reference)
        executed = await _executor(harness).execute_many(permits, clock_s())
        assert executed[1].outcome.verdict in (Verdict.UNKNOWN, Verdict.PENDING)
        for granted, each in zip(permits, executed, strict=True):
            paid = await harness.paid(granted.reference)
            assert each.outcome.verdict in (Verdict.SUCCEEDED, Verdict.UNKNOWN, Verdict.PENDING)
            assert paid == [2_500] or (paid == [] and each.outcome.verdict is not Verdict.SUCCEEDED)

    async def test_secrets_and_payees_are_never_logged(
        self, harness: Harness, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            for script in (None, harness.pays_but_never_answers, harness.answers_an_unknown_status):
                reference = _reference(harness)
                if script is not None:
                    await script(reference)
                await self._pay(harness, reference)
        for secret in harness.secrets:
            assert secret not in caplog.text


def _executor(harness: Harness) -> Executor:
    registration = harness.rail.registration()
    return Executor(harness.rail, registration.rail, registration.timing.call_total_s)


def _buries(harness: Harness) -> bool:
    operations = harness.rail.registration().operations
    return any(can.cancel_by_reference for operation, can in operations.items() if operation not in _COLLECTS)


def _reference(harness: Harness) -> str:
    operations = harness.rail.registration().operations.values()
    return uuid.uuid4().hex.upper()[: min(each.reference_length for each in operations)]
