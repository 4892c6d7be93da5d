"""Old intents are compared again, a slice at a time: in a round of weeks each of them once."""

from datetime import UTC, datetime, timedelta
from typing import Final

from core.domain.context import Context
from core.services.recon.recon import ReconPorts, reconcile_intents

LATELY: Final = timedelta(days=2)
"""What is younger is compared whole every time."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def slices_of(oldest: datetime, begin: datetime, end: datetime, round_: timedelta) -> list[tuple[datetime, datetime]]:
    """Return which stretches of the past are due between two moments: since when, and before when accepted.

    A round begins at the same moments for everybody and spreads over what was old then, so that nothing has to be
    remembered: stretches that follow each other leave no gap, and a round covers all of it.
    """
    due = []
    while begin < end:
        begun = begin - (begin - _EPOCH) % round_
        upto = min(end, begun + round_)
        span = begun - LATELY - oldest
        if span > timedelta():
            since, until = (oldest + span * ((moment - begun) / round_) for moment in (begin, upto))
            due.append((since, until))
        begin = upto
    return due


class Rounds:
    """Compares what is due since the last time; of one process. The first time looks back by one step."""

    def __init__(self, every_s: float, round_s: float) -> None:
        self._step = timedelta(seconds=every_s)
        self._round = timedelta(seconds=round_s)
        self._done_upto: datetime | None = None

    async def go_on(self, ports: ReconPorts, context: Context, now: datetime) -> int:
        """Compare and record breaks; return how many intents were looked at. What fails is due again."""
        async with ports.unit_of_work(context) as uow:
            oldest = await ports.recon.oldest(uow)
        compared = 0
        if oldest is not None:
            for since, until in slices_of(oldest, self._done_upto or now - self._step, now, self._round):
                report = await reconcile_intents(ports, context, since, until)
                compared += report.compared
        self._done_upto = now
        return compared
