"""What one seed means: which provider, which faults and how often, when the accidents happen. Pure."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final
from uuid import UUID

from tests.simulation.hosts import Rates
from tests.simulation.provider import PROFILES, Moods, Profile

DEFAULT_SEEDS: Final = 240
"""How many seeds every test run tries: enough to find each planted bug."""
LONGEST_PAUSE_S: Final = 40.0
"""Longer than I: two processes believe that they own the same entry."""

_RATES: Final[Mapping[str, float]] = {
    "kill": 0.004,
    "pause": 0.004,
    "rollback": 0.05,
    "commit_unknown": 0.05,
    "lost_permit_reply": 0.3,
    "lost_publish_reply": 0.2,
    "publish_delayed": 0.3,
    "evidence_refused": 0.2,
    "entry_doubled": 0.3,
    "entry_lost": 0.1,
    "result_garbled": 0.05,
}
"""The highest rate of each fault of our own side."""

_MOODS: Final[Mapping[str, float]] = {
    "slow_request": 0.4,
    "lost_reply": 0.4,
    "refused": 0.2,
    "throttled": 0.3,
    "garbage": 0.2,
    "server_error": 0.3,
    "late_settlement": 0.6,
    "fails_later": 0.3,
    "invisible": 0.5,
    "wrong_amount": 0.3,
    "lies": 0.5,
}
"""The same of the provider's side."""

_ACCIDENTS: Final = (
    "wipe", "tail", "outage", "core_outage", "rotation", "rail_pause", "restore", "skew", "cancel",
)  # fmt: skip
FAULTS: Final = (*_RATES, *_MOODS, *_ACCIDENTS)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One schedule. `without` switches faults off, so that a failure can be told with as few as possible."""

    seed: int
    payments: int = 16
    without: frozenset[str] = frozenset()

    @property
    def calm_at_s(self) -> float:
        """When the last fault is over."""
        longest = [self.accidents.get(name, (0.0, 0.0)) for name in ("outage", "rail_pause")]
        return max(300.0, *(at_s + lasts_s + 20 for at_s, lasts_s in longest))

    def chance(self, subject: str) -> random.Random:
        """Return the source of chance for one subject: switching another off does not change it."""
        return random.Random(f"{self.seed}:{subject}")

    @property
    def profile(self) -> Profile:
        """The provider of this seed."""
        # What forgets soon has the narrowest escapes.
        names = [*sorted(PROFILES), "forgetful"]
        return PROFILES[self.chance("profile").choice(names)]

    def strikes(self, fault: str) -> bool:
        """Whether the fault belongs to this seed: about half of them do, so that each meets few others."""
        likely = 0.2 if fault in ("lies", "restore", "rotation") else 0.45
        return fault not in self.without and self.chance(f"has {fault}").random() < likely

    def rates(self) -> Rates:
        """Return the rates of our own side's faults."""
        return replace(Rates(), **self._drawn(_RATES))

    def moods(self) -> Moods:
        """Return the rates of the provider's faults."""
        return replace(Moods(), **self._drawn(_MOODS))

    @property
    def accidents(self) -> dict[str, tuple[float, float]]:
        """When each accident begins, and how long it lasts."""
        found = {}
        for name in _ACCIDENTS:
            if self.strikes(name):
                chance = self.chance(name)
                found[name] = (chance.uniform(5, 150), chance.uniform(5, 130))
        if "rail_pause" in found:
            # Until after the deadline of what waits for it.
            found["rail_pause"] = (found["rail_pause"][0], 2 * found["rail_pause"][1])
        long = self.chance("long outage")
        if "outage" in found and long.random() < 0.4:
            # Longer than the provider remembers, where it forgets soon.
            forgotten_s = self.profile.dedup_window_s + self.profile.remembers_longer_s
            found["outage"] = (found["outage"][0], min(400.0, forgotten_s + long.uniform(-20, 40)))
        return found

    def _drawn(self, most: Mapping[str, float]) -> dict[str, float]:
        return {name: self.chance(name).uniform(0.1, 1) * top for name, top in most.items() if self.strikes(name)}


def no_rates() -> Rates:
    """Return the calm."""
    return Rates()


def calm(moods: Moods) -> None:
    """Make a provider answer every request as its contract says."""
    for each in fields(moods):
        setattr(moods, each.name, 0.0)


@dataclass(frozen=True, slots=True)
class Order:
    """What one client asks for: when, how much, and when it changes its mind."""

    number: int
    at_s: float
    wallet: int
    amount_minor: int
    cancels_after_s: float | None
    confirms_after_s: float
    auto_confirms: bool


def orders(scenario: Scenario) -> list[Order]:
    """Return the payments of a seed, oldest first."""
    cancels = scenario.strikes("cancel")
    made = []
    for number in range(scenario.payments):
        chance = scenario.chance(f"payment {number}")
        made.append(
            Order(
                number,
                chance.uniform(0, 120),
                chance.randrange(3),
                chance.randrange(1, 500),
                chance.expovariate(1 / 20) if chance.random() < 0.4 and cancels else None,
                chance.uniform(1, 60),
                chance.random() < 0.6,
            )
        )
    return sorted(made, key=lambda order: order.at_s)


@dataclass(slots=True)
class Told:
    """What a client was told and must find true: 2xx answers only."""

    order: Order
    accepted: UUID | None = None
    accepted_in_s: tuple[float, float] = (0.0, 0.0)
    """From the asking to the answer."""
    cancelled_in_s: tuple[float, float] | None = None
