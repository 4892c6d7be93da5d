"""Rails in PostgreSQL: registrations by version, pauses, and the ledger epoch."""

from typing import Final

import asyncpg

from core.services.rails import RailState
from core.store.database import UnitOfWork
from schemas.rails import RailRegistration


def state_sql(rail: str) -> str:
    """Return the SELECT of the one row that `state_of` reads; `rail` is a parameter, such as `$1`."""
    return f"""
SELECT now() AS now, r.version AS registered, r.body_hash, e.epoch, e.cleared_at IS NOT NULL AS cleared, e.raised_at,
    ARRAY(SELECT operation FROM fleet.rail_pauses WHERE rail = {rail}) AS paused
FROM (SELECT epoch, cleared_at, raised_at FROM fleet.ledger_epochs ORDER BY epoch DESC LIMIT 1) e
LEFT JOIN LATERAL (
    SELECT version, body_hash FROM fleet.rail_registrations WHERE rail = {rail} ORDER BY version DESC LIMIT 1
) r ON true
"""  # noqa: S608 - the name of a parameter


_STATE: Final = state_sql("$1")
_BODY: Final = "SELECT body::text FROM fleet.rail_registrations WHERE rail = $1 AND version = $2"

_REGISTER: Final = """
INSERT INTO fleet.rail_registrations (rail, version, body, body_hash)
SELECT $1, coalesce(max(version), 0) + 1, $2::jsonb, $3 FROM fleet.rail_registrations WHERE rail = $1
RETURNING version
"""

_LATEST: Final = """
SELECT version, body_hash FROM fleet.rail_registrations WHERE rail = $1 ORDER BY version DESC LIMIT 1
"""

_PAUSE: Final = """
INSERT INTO fleet.rail_pauses (rail, operation, paused_by, reason) VALUES ($1, $2, $3, $4)
ON CONFLICT (rail, operation) DO NOTHING
"""

# What waited because of the pause gets the time back: a pause never turns payouts into voids. Jobs, then intents, each
# in the order of their ids, as settlement locks them; questions did not wait.
_RESUME: Final = """
WITH ended AS (
    DELETE FROM fleet.rail_pauses WHERE rail = $1 AND operation = $2 RETURNING now() - paused_at AS lasted
), waiting AS (
    SELECT j.id, e.lasted FROM fleet.jobs j, ended e
    WHERE j.closed_at IS NULL AND j.fence = 0 AND j.rail = $1 AND ($2 = '*' OR j.operation = $2)
        AND j.kind NOT IN ('inquire', 'cancel')
    ORDER BY j.id FOR NO KEY UPDATE OF j
), extended AS (
    UPDATE fleet.jobs j SET deadline = j.deadline + w.lasted FROM waiting w WHERE j.id = w.id
    RETURNING j.intent_id, j.deadline
), held AS (
    SELECT i.id, x.deadline FROM fleet.intents i JOIN extended x ON x.intent_id = i.id
    ORDER BY i.id FOR NO KEY UPDATE OF i
)
UPDATE fleet.intents i SET deadline = h.deadline FROM held h WHERE i.id = h.id
"""

# A registration changes once per deploy, so this stays small.
_PARSED: dict[tuple[str, bytes], RailRegistration] = {}


async def rail_state(uow: UnitOfWork, rail: str) -> RailState:
    """Return registration, pauses and ledger epoch of a rail; the registration is None for an unknown rail."""
    return await state_of(uow, rail, await uow.connection.fetchrow(_STATE, rail))


async def state_of(uow: UnitOfWork, rail: str, row: asyncpg.Record | None) -> RailState:
    """Return the rail's state out of a row of `state_sql`; a registration not met before is read."""
    if row is None:
        raise LookupError("fleet.ledger_epochs is empty: the database was not migrated")
    registration = None
    if row["registered"] is not None:
        key = (rail, row["body_hash"])
        registration = _PARSED.get(key)
        if registration is None:
            body = await uow.connection.fetchval(_BODY, rail, row["registered"])
            registration = _PARSED[key] = RailRegistration.model_validate_json(body)
    return RailState(row["now"], registration, frozenset(row["paused"]), row["epoch"], row["cleared"], row["raised_at"])


async def register_rail(uow: UnitOfWork, rail: str, body: str, body_hash: bytes) -> int:
    """Store a registration as a new version, or find it equal to the newest; return the version."""
    await uow.connection.execute("SELECT pg_advisory_xact_lock(hashtext('fleet.rail:' || $1))", rail)
    latest = await uow.connection.fetchrow(_LATEST, rail)
    if latest is not None and latest["body_hash"] == body_hash:
        return int(latest["version"])
    return int(await uow.connection.fetchval(_REGISTER, rail, body, body_hash))


async def pause_rail(uow: UnitOfWork, rail: str, operation: str, actor: str, reason: str) -> bool:
    """Refuse new first permits; return False where they were refused already."""
    done: str = await uow.connection.execute(_PAUSE, rail, operation, actor, reason)
    return done.endswith("1")


async def resume_rail(uow: UnitOfWork, rail: str, operation: str) -> int:
    """End a pause and move the deadlines of what was not sent by its length; return how many were moved."""
    done: str = await uow.connection.execute(_RESUME, rail, operation)
    return int(done.rsplit(" ", 1)[1])


async def known_rails(uow: UnitOfWork) -> list[str]:
    """Return every rail that ever registered."""
    rows = await uow.connection.fetch("SELECT DISTINCT rail FROM fleet.rail_registrations ORDER BY rail")
    return [row["rail"] for row in rows]
