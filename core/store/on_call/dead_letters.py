"""Dead letters in PostgreSQL: sealed bodies, found by stream and entry or by what is known of them."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import orjson

from core.services.on_call.dead_letters import LetterFilter, LetterGroup, LetterView, Tried, shown_payload
from core.services.settling.settle import Delivery
from core.services.vault_port import Vault
from core.store.database import UnitOfWork
from core.store.on_call.letter_queries import (
    CAPS,
    JOINED,
    STANDING,
    conditions_of,
    pages_of,
    standing_of,
)
from schemas.dead_letters import DeadLetter
from schemas.on_call import LetterAttempt, LetterEvidence

_NO_TENANT: Final = "'00000000-0000-0000-0000-000000000000'::uuid"

_KEEP: Final = f"""
INSERT INTO fleet.dead_letters (id, tenant_id, stream, entry_id, rail, job_id, intent_id, error_class, fingerprint,
    message, deliveries, body, payload, operation, kind, provider, reference, traceparent, permits)
SELECT l.id, coalesce(j.tenant_id, {_NO_TENANT}), l.stream, l.entry_id, l.rail, l.job_id, j.intent_id, l.error_class,
    l.fingerprint, l.message, l.deliveries, l.body, l.payload, j.operation, j.kind, j.provider,
    coalesce(j.reference, ''), j.traceparent, coalesce(j.fence, 0)
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::int[],
    $10::bytea[], $11::jsonb[])
    AS l(id, stream, entry_id, rail, job_id, error_class, fingerprint, message, deliveries, body, payload)
LEFT JOIN fleet.jobs j ON j.id = l.job_id AND j.rail = l.rail
ON CONFLICT (stream, entry_id) DO NOTHING
RETURNING job_id
"""  # noqa: S608 - a constant

# A read that died has nothing to inquire about; a payment with a permit is the resolver's at once. What waits for the
# resolver goes on waiting. `died` lets the job's end close its letters (0089).
_BURY: Final = """
WITH open_jobs AS (
    SELECT id, state IN ('READY', 'QUEUED') AS buried FROM fleet.jobs
    WHERE id = ANY($1::uuid[]) AND closed_at IS NULL AND rail = ANY($2::text[])
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE fleet.jobs j SET died = true, state = CASE WHEN o.buried THEN 'DEAD' ELSE j.state END,
    next_check_at = CASE WHEN NOT o.buried THEN j.next_check_at WHEN j.fence > 0 THEN now() END
FROM open_jobs o WHERE j.id = o.id
"""

# After the jobs are locked: one that closed before its letter came has nobody else to close it.
_END_LATE: Final = "SELECT fleet.close_letters_of($1::uuid[])"

_COLUMNS: Final = (
    "id", "tenant_id", "stream", "entry_id", "rail", "operation", "kind", "provider", "reference", "job_id",
    "intent_id", "error_class", "fingerprint", "message", "deliveries", "permits", "state", "traceparent",
    "received_at", "closed_at", "closed_because",
)  # fmt: skip

# The page first, along an index; only its rows are joined to what is known about them.
_VIEW: Final = f"""
WITH page AS MATERIALIZED (SELECT d.* FROM fleet.dead_letters d WHERE {{}}), {CAPS}
SELECT {", ".join(f"d.{name}" for name in _COLUMNS)}, d.payload::text AS payload, coalesce(j.fence, 0) AS fence,
    i.state AS intent_state, floor(extract(epoch FROM now() - d.received_at))::bigint AS age_s, {STANDING}
FROM page d {JOINED}
ORDER BY d.received_at DESC, d.id DESC
"""  # noqa: S608 - constants

_GROUPS: Final = """
WITH counted AS (
    SELECT d.fingerprint, count(*) AS letters, min(d.received_at) AS first_at, max(d.received_at) AS last_at,
        count(*) FILTER (WHERE d.received_at >= now() - interval '1 hour') AS last_hour,
        count(*) FILTER (WHERE d.received_at < now() - interval '1 hour'
            AND d.received_at >= now() - interval '2 hours') AS hour_before
    FROM fleet.dead_letters d WHERE {} GROUP BY d.fingerprint {} ORDER BY count(*) DESC, d.fingerprint LIMIT {:d}
)
SELECT c.fingerprint, n.error_class, n.rail, n.message, c.letters, c.last_hour, c.hour_before, c.first_at, c.last_at
FROM counted c CROSS JOIN LATERAL (
    SELECT error_class, rail, message FROM fleet.dead_letters d
    WHERE d.fingerprint = c.fingerprint AND d.received_at = c.last_at AND {} LIMIT 1
) n
ORDER BY c.letters DESC, c.fingerprint
"""


# A job of another rail is none of the letter's: its entry only named it.
_ATTEMPTS: Final = """
SELECT a.fence, a.mode, a.reference, a.provider_account, a.environment, a.granted_at, a.negative_at, coalesce((
    SELECT jsonb_agg(jsonb_build_object('verdict', f.verdict, 'received_at', f.received_at, 'applied_at', f.applied_at,
        'quarantine', f.quarantine, 'evidence_id', f.evidence_id, 'provider_tx_id', f.body->'provider_tx_id',
        'reason', f.body->'reason') ORDER BY f.received_at)
    FROM fleet.facts f WHERE f.job_id = a.job_id AND f.fence = a.fence), '[]')::text AS facts
FROM fleet.jobs j JOIN fleet.attempts a ON a.job_id = j.id WHERE j.id = $1 AND j.rail = $2 ORDER BY a.fence
"""
_EVIDENCE: Final = """
SELECT id, kind, received_at FROM fleet.evidence WHERE job_id = $1 AND rail = $2 ORDER BY received_at, id
"""


class DeadLetterStore:
    """Dead jobs and unusable results, raw but sealed."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def keep_dead(self, uow: UnitOfWork, letters: Sequence[DeadLetter]) -> None:
        """Keep each letter once by stream and entry, and mark the open jobs of new ones DEAD.

        A letter of a job that closed meanwhile is kept as CLOSED.
        """
        rows = [
            (_id(x.stream, x.entry_id), x.stream, x.entry_id, x.rail, x.job_id, x.error_class, x.fingerprint, x.message,
             x.deliveries, self._seal(x.stream, x.entry_id, x.body), _shown(x.body))
            for x in letters
        ]  # fmt: skip
        new = await uow.connection.fetch(_KEEP, *(list(column) for column in zip(*rows, strict=True)))
        dead = [row["job_id"] for row in new if row["job_id"] is not None]
        await uow.connection.execute(_BURY, dead, sorted({letter.rail for letter in letters}))
        await uow.connection.execute(_END_LATE, dead)

    async def keep_result(self, uow: UnitOfWork, delivery: Delivery, error_class: str) -> None:
        """Keep a result that cannot be used; its hold stays and the row is the alert's evidence."""
        job_id = delivery.result.job_id if delivery.result is not None else None
        row = (_id(delivery.stream, delivery.entry_id), delivery.stream, delivery.entry_id, delivery.rail, job_id,
               error_class, error_class, f"unusable result: {error_class}", delivery.deliveries,
               self._seal(delivery.stream, delivery.entry_id, delivery.body), _shown(delivery.body))  # fmt: skip
        await uow.connection.execute(_KEEP, *([value] for value in row))
        await uow.connection.execute(
            "INSERT INTO fleet.alerts (id, tenant_id, severity, kind, job_id, detail)"
            " VALUES ($1, '00000000-0000-0000-0000-000000000000', 'page', 'unusable_result', $2, $3)"
            " ON CONFLICT (id) DO NOTHING",
            row[0],
            job_id,
            f"{delivery.stream} {delivery.entry_id} {error_class}",
        )

    async def list_letters(
        self, uow: UnitOfWork, wanted: LetterFilter, limit: int, after: UUID | None = None
    ) -> list[LetterView]:
        """Return letters, newest first; `after` is the last one of the page before."""
        # What is asked for decides the way: a plan for any value would walk every letter for a rare one, and so does
        # a walk over the table, which the planner takes for cheap where it expects many matches.
        await uow.connection.execute("SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off")
        behind = None
        if after is not None:
            last = await uow.connection.fetchrow("SELECT received_at, id FROM fleet.dead_letters WHERE id = $1", after)
            if last is None:
                return []
            behind = (last["received_at"], last["id"])
        found: list[LetterView] = []
        for conditions in pages_of(wanted, limit, behind):
            rows = await uow.connection.fetch(_VIEW.format(conditions.where), *conditions.arguments)
            found = [_view(row) for row in rows]
            if len(found) == limit:
                break
        return found

    async def group_letters(
        self, uow: UnitOfWork, wanted: LetterFilter, limit: int, after: tuple[int, str] | None = None
    ) -> list[LetterGroup]:
        """Return the largest groups by fingerprint, over all that match; `after` is size and name of the last one."""
        conditions, having = conditions_of(wanted), ""
        arguments = list(conditions.arguments)
        if after is not None:
            arguments += after
            size, name = f"${len(arguments) - 1}", f"${len(arguments)}"
            having = f"HAVING count(*) < {size} OR (count(*) = {size} AND d.fingerprint > {name})"
        query = _GROUPS.format(conditions.where, having, limit, conditions.where)
        return [LetterGroup(*row) for row in await uow.connection.fetch(query, *arguments)]

    async def find_letter(self, uow: UnitOfWork, letter_id: UUID, tenant_id: UUID | None = None) -> LetterView | None:
        """Return one letter, None where there is none, or none of this tenant."""
        condition = "d.id = $1 AND ($2::uuid IS NULL OR d.tenant_id = $2)"
        row = await uow.connection.fetchrow(_VIEW.format(condition), letter_id, tenant_id)
        return None if row is None else _view(row)

    async def tried(self, uow: UnitOfWork, letter: LetterView) -> Tried:
        """Return the permits of the letter's job, what was reported under each, and the evidence about it."""
        if letter.job_id is None:
            return Tried()
        attempts = await uow.connection.fetch(_ATTEMPTS, letter.job_id, letter.rail)
        evidence = await uow.connection.fetch(_EVIDENCE, letter.job_id, letter.rail)
        return Tried(
            [LetterAttempt(**dict(row) | {"facts": orjson.loads(row["facts"])}) for row in attempts],
            [LetterEvidence(**dict(row)) for row in evidence],
        )

    def open_body(self, stream: str, entry_id: str, sealed: bytes) -> str:
        """Return a body as it came. Raises VaultError."""
        return self._vault.open_bytes(sealed, bound_to=_binding(stream, entry_id)).decode()

    def _seal(self, stream: str, entry_id: str, body: str) -> bytes:
        return self._vault.seal_bytes(body.encode(), bound_to=_binding(stream, entry_id))


def _binding(stream: str, entry_id: str) -> str:
    return f"dead_letter:{stream}:{entry_id}"


def _shown(body: str) -> str:
    return orjson.dumps(shown_payload(body)).decode()


def _id(stream: str, entry_id: str) -> UUID:
    return UUID(bytes=hashlib.blake2b(f"{stream}\x1f{entry_id}".encode(), digest_size=16).digest())


def _view(row: Any) -> LetterView:
    columns = {name: row[name] for name in (*_COLUMNS, "fence", "intent_state", "age_s")}
    return LetterView(**columns, payload=json.loads(row["payload"]), standing=standing_of(row))
