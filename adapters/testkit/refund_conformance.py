"""The part of the conformance suite about refunds: what a rail claims to pay back, it pays once and never too much."""

# ruff: noqa: S101 - a suite asserts

import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

import pytest

from adapters.runtime.execution import Executor
from adapters.runtime.port import Outcome, Rail, Refunds
from adapters.runtime.timing import clock_s
from schemas.operations import COLLECTED, JobKind, OperationType
from schemas.permits import Granted, Instruction, Payee, PermitMode
from schemas.results import Verdict

_PAID_MINOR = 10_000


class _HasRail(Protocol):
    rail: Rail
    currency: str


@runtime_checkable
class PaysBack(Protocol):
    """A harness whose provider can be paid by somebody, and whose book shows what was paid back."""

    rail: Rail
    currency: str

    async def received(self, amount_minor: int) -> str:
        """Let somebody pay a collection of this amount; return the name of the transaction, as a PAID tells it."""
        ...

    async def refund_is_paid_but_never_answered(self, reference: str) -> None:
        """Script the simulator: this refund is paid back and the answer is lost."""
        ...

    async def refunded(self, reference: str) -> list[int]:
        """Return the amounts that the provider's own book shows as paid back under the reference."""
        ...


@runtime_checkable
class RefusesLater(Protocol):
    """A harness whose provider may refuse a refund while its answer is lost, so that an inquiry alone shows it."""

    async def refund_is_refused_but_never_answered(self, reference: str) -> None:
        """Script the simulator: this refund is refused for good and the answer is lost."""
        ...


@runtime_checkable
class ReturnsRefunds(Protocol):
    """A harness whose provider tells that a refund came back."""

    async def refund_comes_back(self, reference: str, pay_back: Callable[[], Awaitable[Outcome]]) -> None:
        """Let this refund be paid back, by `pay_back`, and come back from the payer's bank."""
        ...


class RefundConformance:
    """Every rail that registers REFUND passes this; its harness is a `PaysBack` too."""

    async def test_a_rail_that_pays_collections_back_says_so_and_has_the_means(self, harness: _HasRail) -> None:
        operations = harness.rail.registration().operations
        claims = {operation for operation, can in operations.items() if can.refunds != "none"}
        assert claims <= COLLECTED, "what did not come in is not paid back"
        assert not claims or OperationType.REFUND in operations
        assert not claims or isinstance(harness.rail, Refunds)

    async def test_a_refund_is_paid_once_however_often_it_is_sent(self, harness: _HasRail) -> None:
        book = _book(harness)
        transaction, reference = await book.received(_PAID_MINOR), _reference(book)
        for _ in range(2):
            told = await _refund(book, transaction, reference, _PAID_MINOR)
            assert (told.verdict, told.amount_minor) == (Verdict.SUCCEEDED, _PAID_MINOR)
        assert await book.refunded(reference) == [_PAID_MINOR]

    async def test_a_refund_whose_answer_is_lost_is_unknown_and_an_inquiry_settles_it(self, harness: _HasRail) -> None:
        book = _book(harness)
        transaction, reference = await book.received(_PAID_MINOR), _reference(book)
        await book.refund_is_paid_but_never_answered(reference)
        lost = await _refund(book, transaction, reference, 2_500)
        assert lost.verdict in (Verdict.UNKNOWN, Verdict.PENDING)
        asked = await _ask(book, reference)
        assert (asked.verdict, asked.amount_minor) == (Verdict.SUCCEEDED, 2_500)
        again = await _refund(book, transaction, reference, 2_500)
        assert again.verdict is Verdict.SUCCEEDED
        assert await book.refunded(reference) == [2_500]

    async def test_a_refund_that_was_never_sent_is_not_found_and_asking_pays_nothing(self, harness: _HasRail) -> None:
        book = _book(harness)
        reference = _reference(book)
        assert (await _ask(book, reference)).verdict in (Verdict.NOT_FOUND, Verdict.UNKNOWN)
        assert await book.refunded(reference) == []

    async def test_a_reference_that_is_taken_pays_no_other_amount(self, harness: _HasRail) -> None:
        book = _book(harness)
        transaction, reference = await book.received(_PAID_MINOR), _reference(book)
        await _refund(book, transaction, reference, 2_500)
        told = await _refund(book, transaction, reference, 2_501)
        # The status of the first one, which the core tells by its amount, or a doubt: never a refund of its own.
        assert told.verdict is not Verdict.SUCCEEDED or told.amount_minor == 2_500
        assert told.verdict not in (Verdict.DECLINED, Verdict.CANCELLED, Verdict.NOT_SENT), "the first one was paid"
        assert await book.refunded(reference) == [2_500]

    async def test_parts_add_up_to_what_was_paid_and_no_further(self, harness: _HasRail) -> None:
        book = _book(harness)
        registered = book.rail.registration().operations.values()
        if all(can.refunds != "parts" for can in registered):
            pytest.skip("this rail pays whole payments back")
        transaction = await book.received(_PAID_MINOR)
        references = [_reference(book) for _ in range(4)]
        told = [await _refund(book, transaction, each, 3_333) for each in references]
        assert [each.verdict for each in told] == [Verdict.SUCCEEDED] * 3 + [Verdict.DECLINED]
        assert [await book.refunded(each) for each in references] == [[3_333]] * 3 + [[]]

    async def test_a_refund_that_an_inquiry_shows_refused_may_be_made_under_a_new_reference(
        self, harness: _HasRail
    ) -> None:
        book = _book(harness)
        if not isinstance(harness, RefusesLater):
            pytest.skip("this provider refuses a refund in its answer or not at all")
        transaction, refused, reference = await book.received(_PAID_MINOR), _reference(book), _reference(book)
        await harness.refund_is_refused_but_never_answered(refused)
        lost = await _refund(book, transaction, refused, _PAID_MINOR)
        assert lost.verdict in (Verdict.UNKNOWN, Verdict.PENDING)
        assert (await _ask(book, refused)).verdict is Verdict.DECLINED
        anew = await _refund(book, transaction, reference, _PAID_MINOR)
        assert (anew.verdict, anew.amount_minor) == (Verdict.SUCCEEDED, _PAID_MINOR)
        assert [await book.refunded(each) for each in (refused, reference)] == [[], [_PAID_MINOR]]

    async def test_a_refund_that_comes_back_may_be_made_anew(self, harness: _HasRail) -> None:
        book = _book(harness)
        if not isinstance(harness, ReturnsRefunds):
            pytest.skip("this provider tells of no refund that came back")
        transaction, first, reference = await book.received(_PAID_MINOR), _reference(book), _reference(book)
        await harness.refund_comes_back(first, lambda: _refund(book, transaction, first, _PAID_MINOR))
        back = await _ask(book, first)
        assert (back.verdict, back.amount_minor) == (Verdict.RETURNED, _PAID_MINOR)
        anew = await _refund(book, transaction, reference, _PAID_MINOR)
        assert (anew.verdict, anew.amount_minor) == (Verdict.SUCCEEDED, _PAID_MINOR)

    async def test_more_than_was_paid_is_never_paid_back(self, harness: _HasRail) -> None:
        book = _book(harness)
        transaction, reference = await book.received(_PAID_MINOR), _reference(book)
        assert (await _refund(book, transaction, reference, _PAID_MINOR + 1)).verdict is Verdict.DECLINED
        assert await book.refunded(reference) == []

    async def test_a_transaction_that_nobody_paid_is_not_refunded(self, harness: _HasRail) -> None:
        book = _book(harness)
        reference = _reference(book)
        told = await _refund(book, f"NOBODY{uuid.uuid4().hex[:12].upper()}", reference, 100)
        assert told.verdict in (Verdict.DECLINED, Verdict.NOT_SENT)
        assert await book.refunded(reference) == []


def _book(harness: Any) -> PaysBack:
    if OperationType.REFUND not in harness.rail.registration().operations:
        pytest.skip("this rail pays nothing back")
    if not isinstance(harness, PaysBack):
        pytest.fail("give the harness `received()`, `refund_is_paid_but_never_answered()` and `refunded()`")
    return harness


def _reference(harness: PaysBack) -> str:
    length = harness.rail.registration().operations[OperationType.REFUND].reference_length
    return (uuid.uuid4().hex + uuid.uuid4().hex).upper()[:length]


async def _refund(harness: PaysBack, transaction: str, reference: str, amount_minor: int) -> Outcome:
    return await _execute(harness, JobKind.REFUND, reference, amount_minor, transaction)


async def _ask(harness: PaysBack, reference: str) -> Outcome:
    return await _execute(harness, JobKind.INQUIRE, reference, 2_500, None)


async def _execute(
    harness: PaysBack, kind: JobKind, reference: str, amount_minor: int, transaction: str | None
) -> Outcome:
    registration = harness.rail.registration()
    granted = Granted(
        job_id=uuid.uuid4(),
        kind=kind,
        mode=PermitMode.SEND if kind is JobKind.REFUND else PermitMode.READ,
        fence=1,
        first=True,
        send_by_s=5,
        reference=reference,
        amount_minor=amount_minor,
        currency=harness.currency,
        provider_account=registration.provider_account,
        environment=registration.environment,
        instruction=Instruction(
            payee=None if transaction is None else Payee(type="transaction", value=transaction),
            operation=OperationType.REFUND,
            target_reference=reference if transaction is None else None,
            target_kind=JobKind.REFUND if transaction is None else None,
        ),
    )
    executor = Executor(harness.rail, registration.rail, registration.timing.call_total_s)
    return (await executor.execute(granted, clock_s())).outcome
