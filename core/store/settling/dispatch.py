"""The outbox on its way into streams, the queued jobs behind it, and the stream epochs. Under the worker role."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import ids_of_that_time
from core.services.settling.bus_ports import Due, QueuedJob
from core.store.database import Database, UnitOfWork
from core.store.literals import array, text
from core.store.settling.outbox import BODY_OF_ROW, NOTIFY_OUTBOX, paused_row
from core.store.settling.rails import end_waits, note_silence, note_waits, sign_permits, waits_are_over
from schemas.streams import WHOLE, Part, whole_stream

_CONTEXT: Final = Context(None, "relay")

_PUT_OFF: Final = "interval '5 minutes'"
"""After so long, or up to twice that, what is paused is looked at again, a part at a time."""

# Each tenant's first due job, then each one's second: whoever has ten thousand delays the others by a share alone.
# The tenants are found by skipping through the index. Twice the limit is looked at, so that a second relay, which finds
# the first half locked, takes the other. The rows are locked one by one, as `due` orders them, until there are enough.
_TAKE: Final = """
WITH RECURSIVE {first}, tenants AS (
    (SELECT tenant_id FROM fleet.outbox WHERE stream = $1 ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT o.tenant_id FROM fleet.outbox o WHERE o.stream = $1 AND o.tenant_id > t.tenant_id
            ORDER BY o.tenant_id LIMIT 1)
    FROM tenants t WHERE t.tenant_id IS NOT NULL
), due AS (
    SELECT waiting.job_id, waiting.round, waiting.turn, waiting.not_before FROM tenants t, LATERAL (
        SELECT o.job_id, o.round, o.not_before, row_number() OVER (ORDER BY o.not_before) AS turn
        FROM fleet.outbox o WHERE o.stream = $1 AND o.tenant_id = t.tenant_id AND {wanted}{part}
        ORDER BY o.not_before LIMIT 2 * $3) waiting
    ORDER BY waiting.turn, waiting.not_before LIMIT 2 * $3
)
SELECT pauses.met, taken.* FROM (SELECT {met} AS met) pauses LEFT JOIN (
    SELECT o.job_id, o.place, o.round, o.body, coalesce(o.traceparent, '') AS traceparent,
        coalesce((SELECT epoch FROM fleet.stream_epochs WHERE rail = $2), 0) AS epoch
    FROM due, LATERAL (
        SELECT o.*, o.ctid AS place FROM fleet.outbox o WHERE o.job_id = due.job_id AND o.round = due.round
        FOR UPDATE SKIP LOCKED) o
    LIMIT $3) taken ON true
"""

# What is paused stays here, and leaves its place in the stream to the rail's other operations; what was sent goes on.
# Who meets it puts it off, so that the others are not looked for behind all of it each time: `resume` puts it back
# where it was. The pause is locked meanwhile: one that just ended puts nothing off, one that ends waits for the commit.
_PUTTING_OFF: Final = """pauses AS (
    SELECT rail, operation FROM fleet.rail_pauses FOR KEY SHARE
), held AS (
    SELECT o.ctid AS place FROM fleet.outbox o
    WHERE {puts_off} AND o.stream = $1 AND o.not_before <= now(){part} AND {paused}
    FOR UPDATE OF o SKIP LOCKED
), put_off AS (
    UPDATE fleet.outbox SET not_before = now() + (1 + random()) * {put_off}
    WHERE ctid = ANY (ARRAY(SELECT place FROM held))
)"""
# Nearly always nothing is paused. Then all of the above has nothing to do, and yet costs a lone payment more than the
# rest of the statement: each part of a plan is set up each time. So it is left out until a pause is met.
_ANY_PAUSE: Final = "pauses AS (SELECT EXISTS (SELECT FROM fleet.rail_pauses) AS met)"

# The last two bytes of an id are drawn by chance; see `schemas.streams.Part.has`.
_PART: Final = "(('x' || right({id}::text, 4))::bit(16)::int % {of} = {number})"

# Each round doubles the wait, so that what is lost again and again does not fill the stream.
_QUEUED: Final = """
SELECT j.id, j.rail, s.stream, j.entry_id, coalesce(j.stream_epoch, 0) < e.epoch AS of_older_epoch
FROM fleet.jobs j JOIN fleet.stream_epochs e ON e.rail = $5,
    LATERAL (SELECT replace(j.stream, '{{' || j.rail || '}}', '{{' || $5 || '}}') AS stream) s
WHERE j.rail = $1{part} AND j.state = 'QUEUED' AND j.closed_at IS NULL AND j.entry_id IS NOT NULL
    AND (coalesce(j.stream_epoch, 0) < e.epoch
        OR j.queued_at < now() - make_interval(secs => $2 * power(2, least(j.rounds, 8))))
    AND ($3::uuid IS NULL OR j.id > $3)
    AND NOT EXISTS (SELECT FROM fleet.parked_entries p
        WHERE p.stream = s.stream AND p.entry_id = j.entry_id AND p.readded_at IS NULL)
ORDER BY j.id LIMIT $4
"""

# The entry is part of the guard: a relay may have queued the job anew since it was looked at.
_REQUEUE: Final = f"""
WITH lost AS (
    SELECT j.id FROM fleet.jobs j JOIN unnest($1::uuid[], $2::text[]) AS g(id, entry_id) ON g.id = j.id
    WHERE j.id = ANY ($1::uuid[]) AND j.state = 'QUEUED' AND j.entry_id = g.entry_id AND j.closed_at IS NULL
    ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
), ready AS (
    UPDATE fleet.jobs j SET state = 'READY', entry_id = NULL, queued_at = NULL, rounds = j.rounds + 1
    WHERE j.id = ANY (ARRAY(SELECT id FROM lost))
    RETURNING j.*
)
INSERT INTO fleet.outbox (job_id, round, tenant_id, rail, stream, body, traceparent)
SELECT r.id, r.rounds, r.tenant_id, r.rail, r.stream, {BODY_OF_ROW}, r.traceparent
FROM ready r
"""  # noqa: S608 - constants

_RAISE: Final = """
INSERT INTO fleet.stream_epochs AS e (rail, epoch, token) VALUES ($1, 1, $3)
ON CONFLICT (rail) DO UPDATE SET epoch = e.epoch + 1, token = excluded.token, raised_at = now()
WHERE e.token IS NOT DISTINCT FROM $2
"""


def _of(statement: str, id_column: str, part: Part, **parts: str) -> str:
    """Return the statement for a part; where that is everything, without a condition."""
    condition = " AND " + _PART.format(id=id_column, of=part.of, number=part.number) if part.of > 1 else ""
    return statement.format(part=condition, **parts)


@lru_cache(maxsize=256)
def _take_unpaused(part: Part) -> str:
    """Return what takes due rows where nothing at all is paused; where something is, it takes none and says so."""
    wanted = "o.not_before <= now() AND NOT (SELECT met FROM pauses)"
    return _of(_TAKE, "o.job_id", part, first=_ANY_PAUSE, wanted=wanted, met="(SELECT met FROM pauses)")


@lru_cache(maxsize=256)
def _take(part: Part, *, paused: bool) -> str:
    """Return what takes due rows, and puts off what a pause holds; or what takes just that, whenever it is due."""
    any_pause, held = "(SELECT EXISTS (SELECT FROM pauses))", paused_row("pauses")
    due = f"o.not_before <= now() AND NOT ({any_pause} AND {held})"
    puts_off, wanted = ("false", held) if paused else (any_pause, due)
    first = _of(_PUTTING_OFF, "o.job_id", part, put_off=_PUT_OFF, puts_off=puts_off, paused=held)
    return _of(_TAKE, "o.job_id", part, first=first, wanted=wanted, met="true")


async def _taken(uow: UnitOfWork, part: Part, asked: Sequence[Any], *, paused: bool) -> Sequence[Any]:
    found: Sequence[Any] = () if paused else await uow.connection.fetch(_take_unpaused(part), *asked)
    if not found or found[0]["met"]:
        found = await uow.connection.fetch(_take(part, paused=paused), *asked)
    return [row for row in found if row["job_id"] is not None]


class TakenBatch:
    """Rows that are locked by this transaction; see `core.services.settling.bus_ports.DueBatch`."""

    def __init__(self, uow: UnitOfWork, rows: list[Due], places: list[tuple[int, int]], epoch: int) -> None:
        self._uow, self._rows, self._places, self._epoch = uow, rows, places, epoch

    @property
    def rows(self) -> Sequence[Due]:
        """The rows: the oldest of each tenant, then the second of each."""
        return self._rows

    async def mark(self, entry_ids: Sequence[str]) -> None:
        """Delete the rows, queue their jobs and dispatch their intents, with the commit.

        So no job is locked while the note waits for this process: its entry has woken an adapter, which asks for a
        permit.
        """
        marked = sorted(zip(self._rows, entry_ids, strict=True), key=lambda pair: pair[0].job_id.int)
        ids = [row.job_id for row, _ in marked]
        first, last = ids_of_that_time(ids)
        self._uow.with_commit(
            "fleet.note_dispatched",
            array(ids),
            array(entry_id for _, entry_id in marked),
            array(row.round for row, _ in marked),
            # The rows are locked by this transaction, so the places where they lie are theirs still.
            array(self._places),
            text(self._epoch),
            text(first),
            text(last),
            text(self._uow.context.actor),
        )


class PostgresDispatch:
    """The DispatchStore of `core.services.settling.bus_ports`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def take_due(
        self, rail: str, stream: str, limit: int, part: Part = WHOLE, *, paused: bool = False
    ) -> AsyncIterator[TakenBatch]:
        """Lock due rows, or those that a pause holds. The commit need not reach the disk: a row that comes back is
        the same job again."""
        async with self._database.unit_of_work(_CONTEXT, durable=False) as uow:
            found = await _taken(uow, part, (stream, part.shard(rail), limit), paused=paused)
            rows = [Due(row["job_id"], row["round"], row["body"], row["traceparent"]) for row in found]
            places = [row["place"] for row in found]
            yield TakenBatch(uow, rows, places, found[0]["epoch"] if found else 0)

    async def queued_jobs(
        self, rail: str, older_than_s: float, after: UUID | None, limit: int, part: Part = WHOLE
    ) -> list[QueuedJob]:
        """Return jobs that should still have an entry, in id order."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(
                _of(_QUEUED, "j.id", part), rail, older_than_s, after, limit, part.shard(rail)
            )
        return [QueuedJob(*row) for row in rows]

    async def requeue(self, jobs: Sequence[QueuedJob]) -> int:
        """Move jobs back to READY with an outbox row; a job that moved meanwhile is left alone."""
        async with self._database.unit_of_work(_CONTEXT) as uow:
            done: str = await uow.connection.execute(
                _REQUEUE, [job.job_id for job in jobs], [job.entry_id for job in jobs]
            )
            await uow.connection.execute(NOTIFY_OUTBOX, sorted({whole_stream(job.stream) for job in jobs}))
        return int(done.rsplit(" ", 1)[1])

    async def states_of(self, job_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Return the state of each job that exists."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch("SELECT id, state FROM fleet.jobs WHERE id = ANY ($1::uuid[])", list(job_ids))
        return {row["id"]: row["state"] for row in rows}

    async def note_stall(self, rail: str, holds_s: float) -> None:
        """Keep that the rail's streams cannot be reached."""
        async with self._database.unit_of_work(_CONTEXT) as uow:
            await note_waits(uow, rail, ["*"], "dispatch", holds_s)

    async def stream_token(self, rail: str) -> str | None:
        """Return the token of the rail's epoch."""
        async with self._database.acquire() as connection:
            token: str | None = await connection.fetchval("SELECT token FROM fleet.stream_epochs WHERE rail = $1", rail)
        return token

    async def raise_stream_epoch(self, rail: str, expected: str | None, token: str) -> str:
        """Raise the epoch if its token is still `expected`; return the token that counts now."""
        async with self._database.acquire() as connection:
            await connection.execute(_RAISE, rail, expected, token)
        return await self.stream_token(rail) or token


class PostgresUpkeep:
    """The Upkeep of `core.services.settling.bus_ports`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sign_permits(self, silent_s: float) -> None:
        """Say that permits are given, and that they were not where nobody said so for that long."""
        async with self._database.unit_of_work(_CONTEXT) as uow:
            await sign_permits(uow, silent_s)

    async def end_waits(self, silent_s: float) -> int:
        """Note that permits are not given where nobody said so for that long; end waits that nobody renewed."""
        async with self._database.looking(_CONTEXT) as uow:
            await note_silence(uow, silent_s)
            if not await waits_are_over(uow):
                return 0
        async with self._database.unit_of_work(_CONTEXT) as uow:
            return await end_waits(uow)

    async def expire_holds(self, limit: int) -> int:
        """Release holds whose time-out has passed; return how many."""
        async with self._database.unit_of_work(_CONTEXT) as uow:
            return int(await uow.connection.fetchval("SELECT fleet.ledger_expire($1)", limit))

    async def purge_nonces(self, older_than_s: float) -> int:
        """Delete old nonces; return how many."""
        async with self._database.acquire() as connection:
            done: str = await connection.execute(
                "DELETE FROM fleet.request_nonces WHERE seen_at < now() - make_interval(secs => $1)", older_than_s
            )
        return int(done.rsplit(" ", 1)[1])

    async def ensure_partitions(self) -> int:
        """Create what is missing for the months ahead; return how many."""
        async with self._database.acquire() as connection:
            return int(await connection.fetchval("SELECT fleet.ensure_partitions(0, 1)"))
