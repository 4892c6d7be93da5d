"""The provider with a book of its own: what it says may be late, lost or nonsense; what it paid is the truth."""

import asyncio
import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from adapters.runtime import errors
from tests.simulation.hosts import Clockwork, Host


class Status(StrEnum):
    """What the provider's book says of a transfer."""

    PROCESSING = "PROCESSING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of provider: what it does, and what the contract promises. Durations are seconds."""

    name: str
    lookup: bool = False
    inquiry: bool = True
    deduplicates: bool = True
    cancels: bool = True
    negative_is_final: bool = True
    expires: bool = False
    """Requests are refused after the lookup's expiry."""
    dialect: bool = False
    """It is spoken to by the PromptPay adapter itself, in HTTP."""
    dedup_window_s: float = 700.0
    lookup_lives_s: float = 100.0
    settles_within_s: float = 40.0
    """The latest settlement after acceptance."""
    holds_back_s: float = 150.0
    """How long a request may be on its way at most: longer than H, where an expiry or a tombstone makes that safe."""
    remembers_longer_s: float = 300.0
    """How long it really remembers beyond its contract: no permit fences a request that is held back for longer."""


PROFILES: Final = {
    profile.name: profile
    for profile in (
        Profile("promptpay", lookup=True, expires=True, dialect=True),
        Profile("forgetful", dedup_window_s=44.0, settles_within_s=10.0, holds_back_s=20.0, remembers_longer_s=45.0),
        Profile("no_cancel", lookup=True, expires=True, cancels=False),
        Profile("no_expiry", cancels=False),
        Profile("no_dedup", deduplicates=False),
        Profile("blind", inquiry=False, deduplicates=False, cancels=False, negative_is_final=False),
        Profile("fickle", negative_is_final=False),
    )
}


@dataclass(slots=True)
class Moods:
    """How often the provider misbehaves, per request. All become zero when the calm begins."""

    slow_request: float = 0.0
    """The request arrives late, up to after the caller gave up."""
    lost_reply: float = 0.0
    refused: float = 0.0
    """Refused for good."""
    throttled: float = 0.0
    garbage: float = 0.0
    server_error: float = 0.0
    late_settlement: float = 0.0
    """Processing first; it ends within the contract's time."""
    fails_later: float = 0.0
    invisible: float = 0.0
    """Accepted, but shown to inquiries only later."""
    wrong_amount: float = 0.0
    """States another amount than it paid."""
    lies: float = 0.0
    """Breaks its contract: says of a payment that it failed, or was cancelled."""


@dataclass(slots=True)
class Transfer:
    """One transfer in the book. `ends_at` is when it gets its last status, `shown_at` when inquiries see it."""

    account: str
    reference: str
    subject: str
    """The intent that it pays: what only the judge of the simulation knows."""
    amount_minor: int
    accepted_at: datetime
    ends_at: datetime
    end: Status
    shown_at: datetime
    number: int
    flips_at: datetime | None = None
    """When a failure that is not final turns into a payment."""

    def status(self, now: datetime) -> Status:
        """Return what the book says at a moment."""
        if now < self.ends_at:
            return Status.PROCESSING
        if self.flips_at is not None and now >= self.flips_at:
            return Status.SUCCEEDED
        return self.end


class NoSuchTransferError(Exception):
    """The reference is not in the book, or not shown yet."""


class LookupExpiredError(Exception):
    """The lookup that the request is bound to is over."""


@dataclass(slots=True)
class Provider:
    """The company: one book per account, a network that loses and delays, outages."""

    world: Clockwork
    profile: Profile
    moods: Moods
    transfers: list[Transfer] = field(default_factory=list)
    tombstones: set[tuple[str, str]] = field(default_factory=set)
    lookups: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    outage: str = ""
    """Empty, `refuses` (no connection) or `hangs` (no answer)."""
    lied: set[str] = field(default_factory=set)
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.world.seed}:provider")

    def payments(self, subject: str) -> list[Transfer]:
        """Return what was really paid for an intent, whenever it is asked."""
        far = self.world.now + timedelta(days=365)
        return [each for each in self.transfers if each.subject == subject and each.status(far) is Status.SUCCEEDED]

    async def carry(self, host: Host, what: str, act: Any) -> Any:
        """Carry one request there and its answer back. Raises what the adapter would learn of it."""
        await host.step()
        if self.outage == "refuses":
            raise errors.NotSent("no connection", reason="no_connection")
        if self.outage == "hangs" or self._strikes(self.moods.lost_reply / 2):
            await asyncio.sleep(3600)
        if self._strikes(self.moods.throttled):
            raise errors.Throttled("slow down", after_s=2)
        if self._strikes(self.moods.server_error / 2):
            raise errors.Indeterminate("HTTP 503", reason="provider_error")
        late_s = self.chance.uniform(0, 0.3)
        if self._strikes(self.moods.slow_request):
            late_s = self.chance.uniform(0, 20 if self._strikes(0.7) else self.profile.holds_back_s)
        arrived: asyncio.Future[Any] = self.world.loop.create_future()
        # On its way it no longer depends on the caller, who may give up or die.
        self.world.loop.call_later(late_s, self._arrive, arrived, act)
        answer = await arrived
        if isinstance(answer, Exception):
            raise answer
        if self._strikes(self.moods.lost_reply):
            self.world.note("provider", f"the answer to {what} is lost")
            await asyncio.sleep(3600)
        if self._strikes(self.moods.server_error / 2):
            raise errors.Indeterminate("HTTP 502", reason="provider_error")
        if self._strikes(self.moods.garbage):
            raise errors.ProtocolViolation("the answer does not parse")
        await host.step()
        return answer

    def _arrive(self, arrived: "asyncio.Future[Any]", act: Any) -> None:
        try:
            answer = act()
        except Exception as refused:  # noqa: BLE001 - carried to the caller, who may be gone
            answer = refused
        if not arrived.done():
            arrived.set_result(answer)

    def look_up(self, number: str, subject: str) -> datetime:
        """Answer a lookup; return until when a payment may be bound to it."""
        until = self.world.now + timedelta(seconds=self.profile.lookup_lives_s)
        self.lookups[number] = (subject, until)
        return until

    def submit(
        self, account: str, reference: str, subject: str, amount_minor: int, expires_at: datetime | None
    ) -> Transfer:
        """Take a payment. Raises LookupExpiredError or Rejected."""
        known = self._remembered(account, reference)
        if known is not None:
            return self._said(known)
        if (account, reference) in self.tombstones:
            return self._record(account, reference, subject, amount_minor, Status.CANCELED)
        if expires_at is not None and self.world.now >= expires_at:
            raise LookupExpiredError
        if self._strikes(self.moods.refused):
            raise errors.Rejected("payee_not_found")
        made = self._record(account, reference, subject, amount_minor, Status.SUCCEEDED)
        if self._strikes(self.moods.fails_later):
            made.end = Status.FAILED
            if not self.profile.negative_is_final and self.profile.cancels and self._strikes(0.5):
                made.flips_at = made.ends_at + timedelta(seconds=self.chance.uniform(0, 60))
        self.world.note("provider", f"takes {reference[:6]} of {account}: {made.end}", subject)
        return self._said(made)

    def inquire(self, account: str, reference: str) -> Transfer:
        """Return the newest transfer under a reference. Raises NoSuchTransferError."""
        for found in reversed(self._under(account, reference)):
            if found.shown_at <= self.world.now:
                return self._said(found)
        if (account, reference) in self.tombstones:
            return self._record(account, reference, "", 1, Status.CANCELED, kept=False)
        raise NoSuchTransferError

    def cancel(self, account: str, reference: str) -> Transfer:
        """Bury the reference, also one that was never seen; too late shows as the status that it has."""
        now = self.world.now
        found = next((each for each in reversed(self._under(account, reference))), None)
        self.tombstones.add((account, reference))
        if found is None:
            self.world.note("provider", f"buries {reference[:6]} of {account}")
            return self._record(account, reference, "", 1, Status.CANCELED, kept=False)
        stands = found.status(now)
        if stands is Status.PROCESSING or (stands is Status.FAILED and not self.profile.negative_is_final):
            if self._strikes(self.moods.lies):
                self.lied.add(found.subject)
                return replace(found, ends_at=now, end=Status.CANCELED, flips_at=None)
            found.ends_at, found.end, found.flips_at = now, Status.CANCELED, None
            self.world.note("provider", f"cancels {reference[:6]}", found.subject)
        return replace(found)

    def _said(self, found: Transfer) -> Transfer:
        """Return what is told of a transfer: the truth, or of a payment that it failed."""
        if found.end is Status.SUCCEEDED and self._strikes(self.moods.lies):
            self.lied.add(found.subject)
            self.world.note("provider", f"says that {found.reference[:6]} failed", found.subject)
            return replace(found, ends_at=self.world.now, end=Status.FAILED)
        if found.end is Status.SUCCEEDED and self._strikes(self.moods.wrong_amount):
            return replace(found, amount_minor=found.amount_minor + 1)
        return replace(found)

    def _remembered(self, account: str, reference: str) -> Transfer | None:
        if not self.profile.deduplicates:
            return None
        since = self.world.now - timedelta(seconds=self.profile.dedup_window_s + self.profile.remembers_longer_s)
        own = self._under(account, reference)
        return own[-1] if own and own[0].accepted_at > since else None

    def _under(self, account: str, reference: str) -> list[Transfer]:
        return [each for each in self.transfers if (each.account, each.reference) == (account, reference)]

    def _record(
        self, account: str, reference: str, subject: str, amount_minor: int, end: Status, *, kept: bool = True
    ) -> Transfer:
        now = self.world.now
        late = end is Status.SUCCEEDED and self._strikes(self.moods.late_settlement)
        within_s = self.profile.settles_within_s
        ends_at = now + timedelta(seconds=self.chance.uniform(0, within_s) if late else 0)
        hidden = self._strikes(self.moods.invisible)
        shown_at = now + timedelta(seconds=self.chance.uniform(0, within_s)) if hidden else now
        made = Transfer(account, reference, subject, amount_minor, now, ends_at, end, shown_at, len(self.transfers))
        if kept:
            self.transfers.append(made)
        return made

    def _strikes(self, rate: float) -> bool:
        return rate > 0 and self.chance.random() < rate
