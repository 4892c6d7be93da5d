"""Redrives in PostgreSQL: the snapshot of a selection, whose turn it is, and what became of each letter."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import orjson

from core.domain.redrive import RECENT, Standing
from core.services.on_call.dead_letters import LetterFilter
from core.services.on_call.redrives import Item, Kept, RedriveRow, Tally
from core.store.database import UnitOfWork
from core.store.on_call.letter_queries import (
    CAPS,
    JOINED,
    STANDING,
    STANDING_COLUMNS,
    conditions_of,
    row_text,
    standing_of,
)
from core.store.settling.outbox import BODY_OF_ROW, NOTIFY_OUTBOX
from schemas.on_call import RedriveAction, RedriveState

_ROW: Final = tuple(RedriveRow.__dataclass_fields__)
_JSON: Final = ("selection", "counts")
_SELECT: Final = ", ".join(f"{name}::text AS {name}" if name in _JSON else name for name in _ROW)

_INSERT: Final = """
INSERT INTO fleet.redrives (id, tenant_id, action, state, reason, incident, selection, evidence_id, counts, total,
    canary, rate_per_s, ramp_s, stop_at_percent, asked_by)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9::jsonb, $10, $11, $12, $13, $14, $15)
ON CONFLICT (id) DO NOTHING
"""

# A letter that another redrive holds is left to it: the unique index decides, whoever clicks first.
_SNAPSHOT: Final = """
INSERT INTO fleet.redrive_items (redrive_id, letter_id, tenant_id, place, doubted)
SELECT ${}, d.id, d.tenant_id, row_number() OVER (ORDER BY d.received_at, d.id), false
FROM fleet.dead_letters d WHERE {}
ON CONFLICT (letter_id) WHERE state IN ('WAITING', 'SENT') DO NOTHING
"""

_TAKEN: Final = """
SELECT count(*) FROM fleet.dead_letters d
JOIN fleet.redrive_items x ON x.letter_id = d.id AND x.state IN ('WAITING', 'SENT') WHERE {}
"""

# Few standings stand for all letters: the rule runs once for each, not once for each letter.
_COUNT: Final = f"""
WITH {CAPS}, standings AS (SELECT {STANDING} FROM {{}} {JOINED} WHERE {{}})
SELECT is_result, {", ".join(STANDING_COLUMNS)}, count(*) AS letters FROM standings
GROUP BY is_result, {", ".join(STANDING_COLUMNS)}
"""  # noqa: S608 - constants

# A standing is a row of booleans: those that the rule calls doubtful are named by their text.
_MARK: Final = f"""
WITH {CAPS}, standings AS (
    SELECT d.id, {STANDING} FROM fleet.redrive_items x JOIN fleet.dead_letters d ON d.id = x.letter_id {JOINED}
    WHERE x.redrive_id = $1
)
UPDATE fleet.redrive_items x SET doubted = true FROM standings s
WHERE x.redrive_id = $1 AND x.letter_id = s.id
    AND ROW(s.is_result, {", ".join(f"s.{name}" for name in STANDING_COLUMNS)})::text = ANY ($2::text[])
"""  # noqa: S608 - constants

_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtextextended('fleet.redrives:' || $1, 0))"
_UNAPPROVED: Final = """
SELECT coalesce(sum(total), 0) FROM fleet.redrives
WHERE asked_by = $1 AND decided_by IS NULL AND action = 'REDRIVE' AND started_at IS NOT NULL
    AND created_at > now() - interval '1 hour'
"""

_TURN: Final = """
SELECT x.letter_id, x.tenant_id, x.doubted, d.stream LIKE '%:results' AS is_result, d.rail, d.stream, d.entry_id,
    d.deliveries, j.id AS job_id, CASE WHEN d.stream LIKE '%:results' THEN d.body END AS body
FROM fleet.redrive_items x JOIN fleet.dead_letters d ON d.id = x.letter_id
LEFT JOIN fleet.jobs j ON j.id = d.job_id AND j.rail = d.rail
WHERE x.redrive_id = $1 AND x.state = 'WAITING' ORDER BY x.place LIMIT $2 FOR UPDATE OF x
"""

_STANDINGS: Final = f"""
WITH {CAPS} SELECT d.id, {STANDING} FROM fleet.dead_letters d {JOINED} WHERE d.id = ANY ($1::uuid[])
"""  # noqa: S608 - constants

# A redrive is a round of its own: failures count anew. The next round of the outbox, as 0006_rounds.sql says.
_PUT_BACK: Final = f"""
WITH ready AS (
    UPDATE fleet.jobs j SET state = 'READY', not_before = NULL, failures = 0, rounds = j.rounds + 1,
        next_check_at = NULL, entry_id = NULL, queued_at = NULL
    WHERE j.id = ANY ($1::uuid[]) AND j.closed_at IS NULL AND j.state IN ('DEAD', 'WAITING')
    RETURNING j.*
), queued AS (
    INSERT INTO fleet.outbox (job_id, round, tenant_id, rail, stream, body, traceparent)
    SELECT r.id, r.rounds, r.tenant_id, r.rail, r.stream, {BODY_OF_ROW}, coalesce(t.traceparent, r.traceparent)
    FROM ready r LEFT JOIN unnest($1::uuid[], $2::text[]) AS t(id, traceparent) ON t.id = r.id
)
SELECT id, stream FROM ready
"""  # noqa: S608 - constants

_FINISH: Final = """
UPDATE fleet.redrive_items x SET state = f.state, verdict = f.verdict, detail = f.detail, acted_at = clock_timestamp()
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) AS f(letter_id, state, verdict, detail)
WHERE x.redrive_id = $1 AND x.letter_id = f.letter_id AND x.state = 'WAITING'
"""

# A job that any answer came for was redriven well, also where the answer is no; one that died again was not, nor one
# whose provider let the call hang: more of that would only be more payments in doubt. What was sent before a redrive
# was cancelled or stopped has its outcome too.
_OBSERVE: Final = """
WITH seen AS (
    SELECT x.redrive_id, x.letter_id, j.state = 'DEAD' OR (j.closed_at IS NULL AND last.verdict = 'UNKNOWN') AS failed,
        CASE WHEN j.closed_at IS NOT NULL THEN 'closed: ' || coalesce(j.outcome, '')
            WHEN j.state = 'DEAD' THEN 'it died again'
            WHEN last.verdict = 'UNKNOWN' THEN 'no answer came: it is asked about'
            ELSE 'answered, in doubt' END AS detail
    FROM fleet.redrive_items x JOIN fleet.dead_letters d ON d.id = x.letter_id JOIN fleet.jobs j ON j.id = d.job_id
    LEFT JOIN LATERAL (
        SELECT f.verdict FROM fleet.facts f WHERE f.job_id = j.id AND f.received_at >= x.acted_at
        ORDER BY f.received_at DESC LIMIT 1
    ) last ON j.closed_at IS NULL AND j.state = 'WAITING'
    WHERE x.state = 'SENT' AND {} AND (j.closed_at IS NOT NULL OR j.state IN ('DEAD', 'WAITING'))
)
UPDATE fleet.redrive_items x SET state = CASE WHEN s.failed THEN 'FAILED' ELSE 'SUCCEEDED' END, detail = s.detail
FROM seen s WHERE x.redrive_id = s.redrive_id AND x.letter_id = s.letter_id AND x.state = 'SENT'
"""
_OF_ONE: Final = "x.redrive_id = $1"
_OF_ENDED: Final = """x.redrive_id IN (SELECT y.redrive_id FROM fleet.redrive_items y JOIN fleet.redrives r
    ON r.id = y.redrive_id AND r.state IN ('CANCELLED', 'STOPPED') WHERE y.state = 'SENT')"""
_OBSERVE_ENDED: Final = _OBSERVE.format(_OF_ENDED)

# The counts are kept with the redrive, by what changes its letters: 0128_redrives_keep_their_counts.sql.
_COUNTED: Final = ("waiting", "sent", "succeeded", "failed", "skipped", "released")
_TALLY: Final = f"""
SELECT {", ".join(_COUNTED)}, (extract(epoch FROM clock_timestamp() - ramp_began_at) * 1000)::bigint AS ramped_ms
FROM fleet.redrives WHERE id = $1
"""  # noqa: S608 - constants

_RECENT: Final = """
SELECT state FROM fleet.redrive_items WHERE redrive_id = $1 AND state IN ('SUCCEEDED', 'FAILED')
ORDER BY place DESC LIMIT $2
"""


class RedriveStore:
    """See `core.services.on_call.redrives.Redrives`."""

    async def insert(self, uow: UnitOfWork, row: RedriveRow) -> bool:
        """Keep a new redrive; False where its id exists."""
        values = [getattr(row, name) for name in (
            "id", "tenant_id", "action", "state", "reason", "incident", "selection", "evidence_id", "counts", "total",
            "canary", "rate_per_s", "ramp_s", "stop_at_percent", "asked_by",
        )]  # fmt: skip
        values = [orjson.dumps(value, default=str).decode() if isinstance(value, dict) else value for value in values]
        done: str = await uow.connection.execute(_INSERT, *values)
        return done.endswith("1")

    async def find(
        self, uow: UnitOfWork, redrive_id: UUID, tenant_id: UUID | None, *, lock: bool = False
    ) -> RedriveRow | None:
        """Return a redrive, locked if asked; None where there is none of this tenant."""
        row = await uow.connection.fetchrow(
            f"SELECT {_SELECT} FROM fleet.redrives WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2)"  # noqa: S608
            + (" FOR UPDATE" if lock else ""),
            redrive_id,
            tenant_id,
        )
        return None if row is None else _redrive(row)

    async def take_running(self, uow: UnitOfWork, besides: Sequence[UUID]) -> RedriveRow | None:
        """Lock the oldest running redrive but these, and but those that another process works on."""
        row = await uow.connection.fetchrow(
            f"SELECT {_SELECT} FROM fleet.redrives WHERE state = 'RUNNING' AND id <> ALL ($1::uuid[])"  # noqa: S608
            " ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED",
            list(besides),
        )
        return None if row is None else _redrive(row)

    async def page(
        self, uow: UnitOfWork, tenant_id: UUID | None, state: RedriveState | None, before: UUID | None, limit: int
    ) -> list[RedriveRow]:
        """Return redrives, newest first."""
        rows = await uow.connection.fetch(
            f"SELECT {_SELECT} FROM fleet.redrives WHERE ($1::uuid IS NULL OR tenant_id = $1)"  # noqa: S608
            " AND ($2::text IS NULL OR state = $2) AND ($3::uuid IS NULL OR (created_at, id) <"
            " (SELECT created_at, id FROM fleet.redrives WHERE id = $3)) ORDER BY created_at DESC, id DESC LIMIT $4",
            tenant_id,
            state,
            before,
            limit,
        )
        return [_redrive(row) for row in rows]

    async def snapshot(self, uow: UnitOfWork, redrive_id: UUID, wanted: LetterFilter) -> int:
        """Take every letter that matches and is in no open redrive; return how many."""
        found = conditions_of(wanted)
        arguments = [*found.arguments, redrive_id]
        done: str = await uow.connection.execute(_SNAPSHOT.format(len(arguments), found.where), *arguments)
        return int(done.rsplit(" ", 1)[1])

    async def count_taken(self, uow: UnitOfWork, wanted: LetterFilter) -> int:
        """Return how many that match are in an open redrive."""
        found = conditions_of(wanted)
        return int(await uow.connection.fetchval(_TAKEN.format(found.where), *found.arguments))

    async def count_standings(
        self, uow: UnitOfWork, wanted: LetterFilter | None, redrive_id: UUID | None = None
    ) -> list[tuple[Standing, int]]:
        """Return how many letters have which standing: of a filter, or of a snapshot."""
        if wanted is not None:
            found = conditions_of(wanted)
            rows = await uow.connection.fetch(_COUNT.format("fleet.dead_letters d", found.where), *found.arguments)
        else:
            source = "fleet.redrive_items x JOIN fleet.dead_letters d ON d.id = x.letter_id"
            rows = await uow.connection.fetch(_COUNT.format(source, "x.redrive_id = $1"), redrive_id)
        return [(standing_of(row), row["letters"]) for row in rows]

    async def change(self, uow: UnitOfWork, redrive_id: UUID, **changed: Any) -> None:
        """Set fields; `now` for a time is the database's."""
        sets: list[str] = []
        arguments: list[Any] = [redrive_id]
        for name, value in changed.items():
            if value == "now":
                sets.append(f"{name} = clock_timestamp()")
                continue
            arguments.append(orjson.dumps(value).decode() if isinstance(value, Mapping) else value)
            sets.append(f"{name} = ${len(arguments)}" + ("::jsonb" if isinstance(value, Mapping) else ""))
        await uow.connection.execute(f"UPDATE fleet.redrives SET {', '.join(sets)} WHERE id = $1", *arguments)  # noqa: S608

    async def tally(self, uow: UnitOfWork, redrive_id: UUID) -> Tally:
        """Return how many letters are where, and the milliseconds since the ramp began."""
        row = await uow.connection.fetchrow(_TALLY, redrive_id)
        newest = await uow.connection.fetch(_RECENT, redrive_id, RECENT)
        failed = sum(row["state"] == "FAILED" for row in newest)
        states = {} if row is None else {name.upper(): row[name] for name in _COUNTED}
        return Tally(states, None if row is None else row["ramped_ms"], failed, len(newest))

    async def observe(self, uow: UnitOfWork, redrive_id: UUID) -> None:
        """Note the outcomes that are known by now."""
        await uow.connection.execute(_OBSERVE.format(_OF_ONE), redrive_id)

    async def observe_ended(self, uow: UnitOfWork) -> None:
        """Note the outcomes of what was sent before a redrive was cancelled or stopped."""
        # Each second, and nearly always of none. Fetched: what is executed without arguments is planned anew each time.
        await uow.connection.fetch(_OBSERVE_ENDED)

    async def mark_doubted(self, uow: UnitOfWork, redrive_id: UUID, standings: Sequence[Standing]) -> None:
        """Note of each letter of a snapshot whether it has one of these standings, which are those in doubt."""
        if standings:
            await uow.connection.execute(_MARK, redrive_id, [row_text(standing) for standing in standings])

    async def unapproved(self, uow: UnitOfWork, actor: str) -> int:
        """Return how many letters somebody redrove alone within the hour; their next question waits for this one."""
        await uow.connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('fleet.redrives:' || $1, 0))", actor
        )
        return int(await uow.connection.fetchval(_UNAPPROVED, actor))

    async def next_items(self, uow: UnitOfWork, redrive_id: UUID, limit: int) -> list[Item]:
        """Lock the letters whose turn it is."""
        rows = await uow.connection.fetch(_TURN, redrive_id, limit)
        return [
            Item(row["letter_id"], row["tenant_id"], row["job_id"], row["doubted"],
                 Kept(row["rail"], row["stream"], row["entry_id"], row["deliveries"], row["body"])
                 if row["is_result"] else None)
            for row in rows
        ]  # fmt: skip

    async def standings(self, uow: UnitOfWork, letters: Sequence[UUID]) -> dict[UUID, Standing]:
        """Return what is known about each letter now."""
        return {row["id"]: standing_of(row) for row in await uow.connection.fetch(_STANDINGS, list(letters))}

    async def put_back(self, uow: UnitOfWork, jobs: Sequence[UUID], traceparents: Sequence[str] = ()) -> None:
        """Queue dead jobs again, under their own ids and references; the relay is woken at commit.

        Each goes on in the trace that is named for it, or in its first one.
        """
        if jobs:
            rows = await uow.connection.fetch(_PUT_BACK, list(jobs), list(traceparents))
            await uow.connection.execute(NOTIFY_OUTBOX, sorted({row["stream"] for row in rows}))

    async def close_letters(self, uow: UnitOfWork, letters: Sequence[UUID], state: str, because: str) -> None:
        """Mark letters as acted upon. Their jobs are locked: a job's end closes its letters under that lock."""
        if letters:
            await uow.connection.execute(
                "UPDATE fleet.dead_letters SET state = $2, closed_at = now(), closed_because = $3"
                " WHERE id = ANY ($1::uuid[])",
                list(letters),
                state,
                because,
            )

    async def finish(self, uow: UnitOfWork, redrive_id: UUID, ends: Sequence[tuple[UUID, str, str, str]]) -> None:
        """Note what became of letters: (letter, state, verdict, detail) each."""
        if ends:
            await uow.connection.execute(_FINISH, redrive_id, *(list(column) for column in zip(*ends, strict=True)))

    async def release(self, uow: UnitOfWork, redrive_id: UUID) -> int:
        """Give the letters back whose turn did not come; return how many."""
        done: str = await uow.connection.execute(
            "UPDATE fleet.redrive_items SET state = 'RELEASED' WHERE redrive_id = $1 AND state = 'WAITING'", redrive_id
        )
        return int(done.rsplit(" ", 1)[1])

    async def items(self, uow: UnitOfWork, redrive_id: UUID, after: int, limit: int) -> list[dict[str, Any]]:
        """Return what became of each letter, in their order after a place."""
        rows = await uow.connection.fetch(
            "SELECT letter_id, place, state, verdict, detail, acted_at FROM fleet.redrive_items"
            " WHERE redrive_id = $1 AND place > $2 ORDER BY place LIMIT $3",
            redrive_id,
            after,
            limit,
        )
        return [dict(row) for row in rows]


def _redrive(row: Any) -> RedriveRow:
    values = dict(row) | {name: orjson.loads(row[name]) for name in _JSON}
    return RedriveRow(**values | {"action": RedriveAction(row["action"]), "state": RedriveState(row["state"])})
