"""Rails in PostgreSQL: registrations by version, pauses, and the ledger epoch."""

from collections.abc import Sequence
from typing import Final

import asyncpg

from core.services.settling.rails import RailState
from core.store.database import UnitOfWork
from core.store.settling.outbox import PUT_BACK
from schemas.rails import RailRegistration


def state_sql(rail: str) -> str:
    """Return the SELECT of the one row that `state_of` reads; `rail` is a parameter, such as `$1`."""
    return f"""
SELECT now() AS now, r.version AS registered, r.body_hash, e.epoch, e.cleared_at IS NOT NULL AS cleared, e.raised_at,
    ARRAY(SELECT operation FROM fleet.rail_pauses WHERE rail = {rail}) AS paused,
    ARRAY(SELECT operation FROM fleet.rail_waits WHERE rail = {rail}) AS waiting
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

_NEWEST: Final = """
SELECT version, body::text FROM fleet.rail_registrations WHERE rail = $1 ORDER BY version DESC LIMIT 1
"""

_PAUSE: Final = """
WITH paused AS (
    INSERT INTO fleet.rail_pauses (rail, operation, paused_by, reason) VALUES ($1, $2, $3, $4)
    ON CONFLICT (rail, operation) DO NOTHING RETURNING true
)
INSERT INTO fleet.rail_events (rail, operation, type, actor, reason) SELECT $1, $2, 'paused', $3, $4 FROM paused
"""

_WAKE_RELAYS: Final = """
SELECT pg_notify('fleet_outbox', stream) FROM (SELECT DISTINCT stream FROM fleet.outbox WHERE rail = $1) AS waiting
"""

_EVENT: Final = """
INSERT INTO fleet.rail_events (rail, operation, type, actor, reason, moved) VALUES ($1, $2, $3, $4, $5, $6)
"""

# A wait that is seen again goes on; what it keeps waiting gets the time from its beginning.
_WAIT: Final = """
WITH seen AS (
    INSERT INTO fleet.rail_waits AS w (rail, operation, cause, holds_until)
    SELECT $1, o, $3, now() + make_interval(secs => $4) FROM unnest($2::text[]) o ORDER BY o
    ON CONFLICT (rail, operation, cause) DO UPDATE SET holds_until = greatest(w.holds_until, excluded.holds_until)
    RETURNING w.operation, w.began_at
)
INSERT INTO fleet.rail_events (rail, operation, type, actor, reason)
SELECT $1, operation, 'wait_began', $5, $3 FROM seen WHERE began_at = now() RETURNING operation
"""

# No API has given permits since: every rail waits from then on, also where that is noticed only once one does again.
_SILENCE: Final = """
WITH silent AS (
    SELECT seen_at FROM fleet.permit_signs WHERE seen_at < now() - make_interval(secs => $1)
), waiting AS (
    INSERT INTO fleet.rail_waits AS w (rail, operation, cause, began_at, holds_until)
    SELECT r.rail, '*', 'permits', s.seen_at, now() + make_interval(secs => $1)
    FROM silent s, (SELECT DISTINCT rail FROM fleet.rail_registrations) r ORDER BY r.rail
    ON CONFLICT (rail, operation, cause) DO UPDATE SET holds_until = greatest(w.holds_until, excluded.holds_until)
    RETURNING w.rail
)
INSERT INTO fleet.rail_events (rail, operation, type, actor, reason)
SELECT n.rail, '*', 'wait_began', $2, 'permits' FROM waiting n
WHERE NOT EXISTS (SELECT FROM fleet.rail_waits w WHERE (w.rail, w.operation, w.cause) = (n.rail, '*', 'permits'))
"""

_SIGN: Final = "INSERT INTO fleet.permit_signs DEFAULT VALUES ON CONFLICT (tenant_id) DO UPDATE SET seen_at = now()"

# Since when something else stops a job that gives the time back when it ends. Two that last at the same time give each
# moment back once: an API that is away makes its adapters say so as well, and a person may pause what waits.
_STOPPED_SINCE: Final = """
SELECT min(began_at) AS began_at FROM (
    SELECT w.began_at FROM fleet.rail_waits w WHERE j.state IN ('READY', 'QUEUED')
        AND w.rail = j.rail AND w.operation IN ('*', j.operation) AND w.holds_until > now()
    UNION ALL
    SELECT p.paused_at FROM fleet.rail_pauses p WHERE j.fence = 0
        AND p.rail = j.rail AND p.operation IN ('*', j.operation){but}
) others
"""

# As at the end of a pause, but for what was tried and proven unsent, too, and for no longer than it waited itself.
_END_WAITS: Final = f"""
WITH ended AS (
    DELETE FROM fleet.rail_waits WHERE holds_until <= now() RETURNING rail, operation, began_at, holds_until
), waiting AS (
    SELECT j.id, (SELECT max(least(e.holds_until, o.began_at) - greatest(e.began_at, j.created_at))
        FROM ended e, ({_STOPPED_SINCE.format(but="")}) o
        WHERE e.rail = j.rail AND e.operation IN ('*', j.operation)) AS lasted
    FROM fleet.jobs j
    WHERE j.closed_at IS NULL AND j.state IN ('READY', 'QUEUED') AND j.kind NOT IN ('inquire', 'cancel')
        AND EXISTS (SELECT FROM ended e WHERE e.rail = j.rail AND e.operation IN ('*', j.operation)
            AND j.created_at < e.holds_until)
    ORDER BY j.id FOR NO KEY UPDATE OF j
), extended AS (
    UPDATE fleet.jobs j SET deadline = j.deadline + w.lasted FROM waiting w WHERE j.id = w.id AND w.lasted > '0'
    RETURNING j.intent_id, j.deadline, j.rail, j.operation
), held AS (
    SELECT i.id, x.deadline FROM fleet.intents i JOIN extended x ON x.intent_id = i.id
    ORDER BY i.id FOR NO KEY UPDATE OF i
), moved AS (
    UPDATE fleet.intents i SET deadline = h.deadline FROM held h WHERE i.id = h.id
)
INSERT INTO fleet.rail_events (rail, operation, type, actor, moved)
SELECT e.rail, e.operation, 'wait_ended', 'resolver',
    (SELECT count(*) FROM extended x WHERE x.rail = e.rail AND e.operation IN ('*', x.operation))
FROM ended e
"""  # noqa: S608 - a constant

_OVER: Final = "SELECT EXISTS (SELECT FROM fleet.rail_waits WHERE holds_until <= now())"

_OVERVIEW: Final = """
SELECT r.rail, r.version, r.registered_at, r.body->>'provider' AS provider,
    r.body->>'provider_account' AS provider_account,
    coalesce((SELECT jsonb_agg(jsonb_build_object('operation', p.operation, 'reason', p.reason, 'by', p.paused_by,
        'since', p.paused_at) ORDER BY p.operation)
        FROM fleet.rail_pauses p WHERE p.rail = r.rail), '[]')::text AS pauses,
    coalesce((SELECT jsonb_agg(jsonb_build_object('operation', w.operation, 'cause', w.cause, 'since', w.began_at)
        ORDER BY w.operation) FROM fleet.rail_waits w WHERE w.rail = r.rail), '[]')::text AS waits
FROM (SELECT DISTINCT ON (rail) * FROM fleet.rail_registrations ORDER BY rail, version DESC) r ORDER BY r.rail
"""

_EVENTS: Final = """
SELECT at, type, operation, actor, reason, moved FROM fleet.rail_events WHERE rail = $1 ORDER BY id DESC LIMIT $2
"""

# What waited because of the pause gets the time back: a pause never turns payouts into voids. Jobs, then intents, each
# in the order of their ids, as settlement locks them; questions did not wait.
_RESUME: Final = f"""
WITH ended AS (
    DELETE FROM fleet.rail_pauses WHERE rail = $1 AND operation = $2 RETURNING paused_at
), waiting AS (
    SELECT j.id, least(now(), ({_STOPPED_SINCE.format(but=" AND p.operation <> $2")}))
        - greatest(e.paused_at, j.created_at) AS lasted
    FROM fleet.jobs j, ended e
    WHERE j.closed_at IS NULL AND j.fence = 0 AND j.rail = $1 AND ($2 = '*' OR j.operation = $2)
        AND j.kind NOT IN ('inquire', 'cancel')
    ORDER BY j.id FOR NO KEY UPDATE OF j
), extended AS (
    UPDATE fleet.jobs j SET deadline = j.deadline + w.lasted FROM waiting w WHERE j.id = w.id AND w.lasted > '0'
    RETURNING j.intent_id, j.deadline
), held AS (
    SELECT i.id, x.deadline FROM fleet.intents i JOIN extended x ON x.intent_id = i.id
    ORDER BY i.id FOR NO KEY UPDATE OF i
)
UPDATE fleet.intents i SET deadline = h.deadline FROM held h WHERE i.id = h.id
"""  # noqa: S608 - a constant

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
    return RailState(
        row["now"],
        registration,
        frozenset(row["paused"]),
        row["epoch"],
        row["cleared"],
        row["raised_at"],
        frozenset(row["waiting"]),
    )


async def register_rail(uow: UnitOfWork, rail: str, body: str, body_hash: bytes) -> int:
    """Store a registration as a new version, or find it equal to the newest; return the version."""
    await uow.connection.execute("SELECT pg_advisory_xact_lock(hashtext('fleet.rail:' || $1))", rail)
    latest = await uow.connection.fetchrow(_LATEST, rail)
    if latest is not None and latest["body_hash"] == body_hash:
        return int(latest["version"])
    return int(await uow.connection.fetchval(_REGISTER, rail, body, body_hash))


async def registered_rail(uow: UnitOfWork, rail: str) -> tuple[int, RailRegistration] | None:
    """Return the newest registration and its version, None for a rail that never registered."""
    row = await uow.connection.fetchrow(_NEWEST, rail)
    return None if row is None else (int(row["version"]), RailRegistration.model_validate_json(row["body"]))


async def pause_rail(uow: UnitOfWork, rail: str, operation: str, actor: str, reason: str) -> bool:
    """Refuse new first permits; return False where they were refused already."""
    done: str = await uow.connection.execute(_PAUSE, rail, operation, actor, reason)
    return done.endswith("1")


async def resume_rail(uow: UnitOfWork, rail: str, operation: str) -> int:
    """End a pause and move the deadlines of what was not sent by its length; return how many were moved."""
    # One at a time: of two at once each would leave to the other's pause what both have lasted.
    paused = "SELECT operation FROM fleet.rail_pauses WHERE rail = $1 ORDER BY operation FOR NO KEY UPDATE"
    if operation not in {row["operation"] for row in await uow.connection.fetch(paused, rail)}:
        return 0
    done: str = await uow.connection.execute(_RESUME, rail, operation)
    moved = int(done.rsplit(" ", 1)[1])
    await uow.connection.execute(_EVENT, rail, operation, "resumed", uow.context.actor, "", moved)
    await uow.connection.execute(PUT_BACK, rail, operation)
    await uow.connection.execute(_WAKE_RELAYS, rail)
    return moved


async def note_waits(uow: UnitOfWork, rail: str, operations: Sequence[str], cause: str, holds_s: float) -> list[str]:
    """Keep that operations of a rail cannot go on for `holds_s`, unless said again; return which began to wait."""
    rows = await uow.connection.fetch(_WAIT, rail, list(operations), cause, holds_s, uow.context.actor)
    return [row["operation"] for row in rows]


async def note_silence(uow: UnitOfWork, silent_s: float) -> None:
    """Keep that every rail waits where no API has given permits for `silent_s`; the wait holds for as long again."""
    await uow.connection.execute(_SILENCE, silent_s, uow.context.actor)


async def sign_permits(uow: UnitOfWork, silent_s: float) -> None:
    """Say that permits are given; where nobody said so for `silent_s`, what waited gets that time back."""
    await note_silence(uow, silent_s)
    await uow.connection.execute(_SIGN)


async def waits_are_over(uow: UnitOfWork) -> bool:
    """Whether there are waits that nobody renewed."""
    return bool(await uow.connection.fetchval(_OVER))


async def end_waits(uow: UnitOfWork) -> int:
    """End waits that nobody renewed, and give their time back to what they kept waiting; return how many ended."""
    done: str = await uow.connection.execute(_END_WAITS)
    return int(done.rsplit(" ", 1)[1])


async def overview(uow: UnitOfWork) -> list[asyncpg.Record]:
    """Return every rail's newest registration with what is paused and what waits, as JSON texts."""
    return list(await uow.connection.fetch(_OVERVIEW))


async def events_of(uow: UnitOfWork, rail: str, limit: int) -> list[asyncpg.Record]:
    """Return what happened to a rail, newest first."""
    return list(await uow.connection.fetch(_EVENTS, rail, limit))


async def known_shards(uow: UnitOfWork) -> list[str]:
    """Return the shards, beyond a rail's first, that this core ever made streams for."""
    rows = await uow.connection.fetch("SELECT rail FROM fleet.stream_epochs WHERE rail LIKE '%.%' ORDER BY rail")
    return [row["rail"] for row in rows]


async def known_rails(uow: UnitOfWork) -> list[str]:
    """Return every rail that ever registered."""
    rows = await uow.connection.fetch("SELECT DISTINCT rail FROM fleet.rail_registrations ORDER BY rail")
    return [row["rail"] for row in rows]
