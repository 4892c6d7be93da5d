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
# Positions that were told in the lost time are given out to no other event: followers go on behind them.
_POSITIONS_SKIPPED: Final = 1_000_000_000
_SKIP_POSITIONS: Final = "SELECT setval('fleet.event_positions', last_value + $1) FROM fleet.event_positions"


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
    """Raise the epoch and return it; it is not cleared, so first permits of older jobs stay shut.

    Events from now on have ids above every one that may have been told and is lost.
    """
    await uow.connection.execute(_LOCK)
    await uow.connection.execute(_SKIP_POSITIONS, _POSITIONS_SKIPPED)
    return int(await uow.connection.fetchval(_RAISE, reason))


# An answer is any fact since the raise about the payment itself or a question about it; "unknown" is none.
_UNCLEARED: Final = """
SELECT e.epoch, count(j.id) FILTER (WHERE j.fence = 0) AS never_permitted,
    count(j.id) FILTER (WHERE j.fence > 0 AND NOT EXISTS (
        SELECT FROM fleet.jobs q JOIN fleet.facts f ON f.job_id = q.id
        WHERE q.intent_id = j.intent_id AND f.received_at >= e.raised_at AND f.verdict <> 'UNKNOWN')) AS unanswered
FROM (SELECT epoch, raised_at, cleared_at FROM fleet.ledger_epochs ORDER BY epoch DESC LIMIT 1) e
LEFT JOIN fleet.jobs j ON j.closed_at IS NULL AND j.ledger_epoch < e.epoch AND j.kind NOT IN ('inquire', 'cancel')
WHERE e.cleared_at IS NULL
GROUP BY e.epoch
"""
_CLEAR: Final = """
UPDATE fleet.ledger_epochs SET cleared_at = now(), clear_reason = $2 WHERE epoch = $1 AND cleared_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class UnclearedEpoch:
    """What clearing would let go: `never_permitted` would be sent, `unanswered` may have been paid."""

    epoch: int
    never_permitted: int
    unanswered: int


async def uncleared_epoch(uow: UnitOfWork) -> UnclearedEpoch | None:
    """Lock the epochs and return the newest one with what it keeps shut; None where it is clear."""
    await uow.connection.execute(_LOCK)
    rows = await uow.connection.fetch(_UNCLEARED)
    return UnclearedEpoch(**dict(rows[0])) if rows else None


async def clear_ledger_epoch(uow: UnitOfWork, epoch: int, reason: str) -> None:
    """Open first permits of older jobs again; the caller has seen that nothing is unanswered."""
    await uow.connection.execute(_CLEAR, epoch, reason)
