"""Timing profiles: every one obeys S + T_psp < I < H (protocol.md §4)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """Durations in seconds, as the environment of the core and of the adapters."""

    send_by_s: float
    call_total_s: float
    claim_idle_s: float
    settlement_s: float
    """The contract's latest settlement and skew: H = I + this, which is above S + T_psp + this."""
    results_claim_idle_s: float
    """After how long a settler's entries are another's; no money moves by them, so the inequality leaves it out."""
    inquiry_first_s: float
    sweeper_age_s: float
    breaker_window_s: float
    breaker_open_most_s: float

    def core_env(self) -> dict[str, str]:
        """Return the core's variables."""
        return {
            "FLEET_RESULTS_CLAIM_IDLE_S": str(self.results_claim_idle_s),
            "FLEET_INQUIRY_FIRST_S": str(self.inquiry_first_s),
            "FLEET_SWEEPER_AGE_S": str(self.sweeper_age_s),
            "FLEET_SWEEPER_EVERY_S": str(self.sweeper_age_s / 3),
        }

    def adapter_env(self) -> dict[str, str]:
        """Return the adapters' variables."""
        return {
            "FLEET_SEND_BY_S": str(self.send_by_s),
            "FLEET_CALL_TOTAL_S": str(self.call_total_s),
            "FLEET_CLAIM_IDLE_S": str(self.claim_idle_s),
            "FLEET_BREAKER_WINDOW_S": str(self.breaker_window_s),
            "FLEET_BREAKER_OPEN_MOST_S": str(self.breaker_open_most_s),
        }


STANDARD = Profile(
    send_by_s=5,
    call_total_s=10,
    claim_idle_s=60,
    settlement_s=60,
    results_claim_idle_s=15,
    inquiry_first_s=5,
    sweeper_age_s=30,
    breaker_window_s=10,
    breaker_open_most_s=60,
)
"""The protocol's defaults."""

SCALED = Profile(
    send_by_s=1,
    call_total_s=1.5,
    claim_idle_s=4,
    settlement_s=3,
    results_claim_idle_s=2,
    inquiry_first_s=1,
    sweeper_age_s=3,
    breaker_window_s=3,
    breaker_open_most_s=4,
)
"""For the demo and the tests: the same inequality, some twenty times faster."""
