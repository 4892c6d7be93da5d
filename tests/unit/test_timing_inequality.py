"""S + T_psp < I < H < dedup window, refused link by link: by an adapter that starts and by the core."""

from collections.abc import Callable
from typing import Any

import pytest

from adapters.runtime import timing as of_adapters
from core.services.settling import rails as of_core
from schemas.operations import OperationType
from schemas.rails import Capabilities, RailRegistration, Timing

Check = Callable[[RailRegistration], object]


def _adapter(registration: RailRegistration) -> None:
    of_adapters.check_timing(registration, batch=1, concurrency=1)


BOTH = pytest.mark.parametrize(
    ("check", "refusal"),
    [(_adapter, of_adapters.TimingRefusedError), (of_core.check_timing, of_core.TimingRefusedError)],
    ids=["adapter", "core"],
)


def _registration(idle_s: float = 60, horizon_s: float = 120, **can: Any) -> RailRegistration:
    capabilities = Capabilities(not_found_horizon_s=horizon_s, max_amount_minor=100, currencies=["THB"], **can)
    return RailRegistration(
        rail="testrail", provider="p", provider_account="a", operations={OperationType.PAYOUT: capabilities},
        payee_types={}, timing=Timing(send_by_s=5, call_total_s=10, claim_idle_s=idle_s),
    )  # fmt: skip


@BOTH
def test_durations_that_are_each_below_the_next_are_taken(check: Check, refusal: type[Exception]) -> None:
    check(_registration(deduplicates_reference=True, dedup_window_s=121))


@BOTH
def test_a_claim_time_that_a_send_and_its_call_can_fill_is_refused(check: Check, refusal: type[Exception]) -> None:
    check(_registration(idle_s=15.5))
    with pytest.raises(refusal, match="not below"):
        check(_registration(idle_s=15))


@BOTH
@pytest.mark.parametrize("horizon_s", [60, 59.5, 1])
def test_a_not_found_that_counts_before_a_claim_is_possible_is_refused(
    check: Check, refusal: type[Exception], horizon_s: float
) -> None:
    check(_registration(horizon_s=60.5))
    with pytest.raises(refusal, match=rf"60.*is not below.*{horizon_s}"):
        check(_registration(horizon_s=horizon_s))


@BOTH
@pytest.mark.parametrize("window_s", [120, 119.5, 1])
def test_a_provider_that_forgets_references_before_not_found_counts_is_refused(
    check: Check, refusal: type[Exception], window_s: float
) -> None:
    with pytest.raises(refusal, match=rf"120.*is not below.*{window_s}"):
        check(_registration(deduplicates_reference=True, dedup_window_s=window_s))
    # Where nothing is sent again on the strength of the window, how long it is does not matter.
    check(_registration(deduplicates_reference=False, dedup_window_s=window_s))
    check(_registration(deduplicates_reference=True, dedup_window_s=None))


def test_one_unsafe_operation_refuses_a_rail_whose_others_are_safe() -> None:
    safe = _registration()
    unsafe = _registration(horizon_s=50).operations[OperationType.PAYOUT]
    both = safe.model_copy(update={"operations": {**safe.operations, OperationType.REFUND: unsafe}})
    for check, refusal in (
        (_adapter, of_adapters.TimingRefusedError),
        (of_core.check_timing, of_core.TimingRefusedError),
    ):
        with pytest.raises(refusal, match=r"(?i)refund"):
            check(both)
