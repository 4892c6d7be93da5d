"""The ledger epoch: raised after a restore that may have lost commits (docs/protocol.md, the money-safety section)."""

from dataclasses import dataclass
from typing import Final

from core.store.database import UnitOfWork

_STATUS: Final = """
SELECT (SELECT coalesce(max(epoch), 1) FROM fleet.ledger_epochs) AS epoch, count(*) AS open_jobs,
    count(*) FILTER (WHERE fence > 0) AS jobs_with_permit
FROM fleet.jobs WHERE closed_at IS NULL
"""

# Two operators at once raise it twice, in turn: the lock keeps both from computing the same number.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('fleet.ledger_epoch'))"
_RAISE: Final = """
INSERT INTO fleet.ledger_epochs (epoch, reason) SELECT coalesce(max(epoch), 1) + 1, $1 FROM fleet.ledger_epochs
RETURNING epoch
"""


@dataclass(frozen=True, slots=True)
class EpochStatus:
    """What a raise would put in doubt."""

    epoch: int
    open_jobs: int
    jobs_with_permit: int


async def epoch_status(uow: UnitOfWork) -> EpochStatus:
    """Return the newest epoch and how many open jobs an epoch above it would count as possibly sent."""
    rows = await uow.connection.fetch(_STATUS)
    return EpochStatus(**dict(rows[0]))


async def raise_ledger_epoch(uow: UnitOfWork, reason: str) -> int:
    """Raise the epoch and return it; it is not cleared, so first permits of older jobs stay shut."""
    await uow.connection.execute(_LOCK)
    return int(await uow.connection.fetchval(_RAISE, reason))
