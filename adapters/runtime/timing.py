"""The timing inequality of the protocol, checked when an adapter starts, and the clock behind S."""

import time
from typing import Final

from schemas.rails import RailRegistration

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Runs on through suspend where the system has such a clock: a laptop lid must not keep a permit alive."""


class TimingRefusedError(ValueError):
    """The configured durations cannot be safe together; the text carries the numbers."""


def clock_s() -> float:
    """Return seconds on the clock that S is measured with."""
    return time.clock_gettime(_CLOCK)


def check_timing(registration: RailRegistration, *, batch: int, concurrency: int) -> None:
    """Raise TimingRefusedError unless S + T_psp < I < H and batch * T_psp / concurrency < I, for every operation."""
    timing = registration.timing
    send_by_s, call_total_s, idle_s = timing.send_by_s, timing.call_total_s, timing.claim_idle_s
    if not send_by_s + call_total_s < idle_s:
        raise TimingRefusedError(
            f"S + T_psp < I does not hold: {send_by_s} s + {call_total_s} s is not below {idle_s} s"
            " (FLEET_SEND_BY_S, FLEET_CALL_TOTAL_S, FLEET_CLAIM_IDLE_S)"
        )
    for operation, capabilities in registration.operations.items():
        horizon_s = capabilities.not_found_horizon_s
        if not idle_s < horizon_s:
            raise TimingRefusedError(
                f"I < H does not hold for {operation}: {idle_s} s is not below {horizon_s} s"
                " (FLEET_CLAIM_IDLE_S, the rail's not_found_horizon_s)"
            )
        window_s = capabilities.dedup_window_s
        if capabilities.deduplicates_reference and window_s is not None and not horizon_s < window_s:
            raise TimingRefusedError(
                f"H < dedup_window does not hold for {operation}: {horizon_s} s is not below {window_s} s"
            )
    busy_s = batch * call_total_s / concurrency
    if not busy_s < idle_s:
        raise TimingRefusedError(
            f"batch * T_psp / concurrency < I does not hold: {batch} * {call_total_s} s / {concurrency}"
            f" = {busy_s:g} s is not below {idle_s} s (FLEET_BATCH, FLEET_CONCURRENCY)"
        )
