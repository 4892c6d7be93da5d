"""Returns that a provider announces: kept with their reason, and told to a person where no booking follows in time.

An announcement moves no money and changes no payment. What comes back is booked when the account shows it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from core.services.settling.facts import Alert, Facts
from schemas.announced_returns import AnnouncedReturns
from schemas.money import money_text

RETURN_NOT_BOOKED: Final = "return_not_booked"


@dataclass(frozen=True, slots=True)
class Awaited:
    """An announcement whose booking is due; amounts are minor units."""

    key: tuple[str, str, str, str, str, int, str]
    tenant_id: UUID
    intent_id: UUID | None
    """None where its reference is of no payment of ours."""
    provider_reason: str
    evidence_id: UUID
    announced_minor: int
    """All that was announced of the payment."""
    booked_minor: int
    alerted: bool

    @property
    def is_booked(self) -> bool:
        """Whether the account shows at least what was announced."""
        return self.booked_minor >= self.announced_minor

    def alert(self) -> Alert:
        """Return what a person is told."""
        rail, account, _, name, reference, amount_minor, currency = self.key
        what = f"{rail} {account} announced in {name} that {money_text(amount_minor, currency)} come back"
        if self.intent_id is None:
            detail = f"{what}, of no payment of ours: it names {reference or 'none'}"
        else:
            told = f"{what} of {reference} ({self.provider_reason or 'no reason'})"
            detail = f"{told}: {money_text(self.booked_minor, currency)} are booked"
        # Of no payment: under the id of its evidence, as what rests in suspense has its alerts under its own.
        return Alert(self.tenant_id, "ticket", RETURN_NOT_BOOKED, self.intent_id or self.evidence_id, None, detail)


class Announcements(Protocol):
    """Where they are kept."""

    async def keep(self, uow: Any, rail: str, told: AnnouncedReturns) -> int: ...
    async def due(self, uow: Any, limit: int) -> list[Awaited]: ...
    async def looked_at(self, uow: Any, looked: Sequence[Awaited]) -> None: ...


class AnnouncedPorts(Protocol):
    """What telling works with."""

    @property
    def announced(self) -> Announcements: ...
    @property
    def facts(self) -> Facts: ...


async def tell_unbooked(
    ports: AnnouncedPorts, unit_of_work: Callable[[], AbstractAsyncContextManager[Any]], limit: int
) -> int:
    """Look at announcements whose booking is due; return how many. Safe with several at once.

    What is not booked in full is a ticket, once; it closes by itself when the booking comes late.
    """
    async with unit_of_work() as uow:
        due = await ports.announced.due(uow, limit)
        if not due:
            return 0
        await ports.facts.raise_alerts(uow, [each.alert() for each in due if not (each.is_booked or each.alerted)])
        late = [each.intent_id for each in due if each.is_booked and each.alerted and each.intent_id is not None]
        if late:
            await ports.facts.close_alerts(uow, late, RETURN_NOT_BOOKED, "the account shows it booked")
        await ports.announced.looked_at(uow, due)
    return len(due)
