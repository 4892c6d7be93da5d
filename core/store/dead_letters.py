"""Dead letters in PostgreSQL: sealed bodies, found by stream and entry."""

import hashlib
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from core.services.dead_letters import LetterFilter, LetterView
from core.services.settle import Delivery
from core.services.vault_port import Vault
from core.store.database import UnitOfWork
from schemas.dead_letters import DeadLetter

_NO_TENANT: Final = "'00000000-0000-0000-0000-000000000000'::uuid"

_KEEP: Final = f"""
INSERT INTO fleet.dead_letters (id, tenant_id, stream, entry_id, rail, job_id, intent_id, error_class, fingerprint,
    message, deliveries, body)
SELECT l.id, coalesce(j.tenant_id, {_NO_TENANT}), l.stream, l.entry_id, l.rail, l.job_id, j.intent_id, l.error_class,
    l.fingerprint, l.message, l.deliveries, l.body
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::int[],
    $10::bytea[])
    AS l(id, stream, entry_id, rail, job_id, error_class, fingerprint, message, deliveries, body)
LEFT JOIN fleet.jobs j ON j.id = l.job_id AND j.rail = l.rail
ON CONFLICT (stream, entry_id) DO NOTHING
RETURNING job_id
"""  # noqa: S608 - a constant

# A read that died has nothing to inquire about; a payment with a permit is the resolver's at once.
_BURY: Final = """
WITH dead AS (
    SELECT id FROM fleet.jobs
    WHERE id = ANY($1::uuid[]) AND closed_at IS NULL AND state IN ('READY', 'QUEUED') AND rail = ANY($2::text[])
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE fleet.jobs j SET state = 'DEAD', next_check_at = CASE WHEN fence > 0 THEN now() END
FROM dead WHERE j.id = dead.id
"""

_VIEW: Final = """
SELECT d.id, d.stream, d.entry_id, d.rail, d.job_id, d.intent_id, d.error_class, d.fingerprint, d.message, d.deliveries,
    d.state, d.received_at,
    coalesce(j.fence, 0) AS fence, j.closed_at IS NOT NULL AS job_closed, i.state AS intent_state,
    NOT EXISTS (SELECT FROM fleet.attempts a
        WHERE a.job_id = d.job_id AND a.negative_at IS NULL AND a.mode = 'SEND') AS all_negative
FROM fleet.dead_letters d
LEFT JOIN fleet.jobs j ON j.id = d.job_id LEFT JOIN fleet.intents i ON i.id = d.intent_id
"""


_LIST: Final = """
WHERE ($1::text IS NULL OR d.rail = $1) AND ($2::text IS NULL OR d.error_class = $2)
    AND ($3::text IS NULL OR d.fingerprint = $3) AND d.state = $4
    AND ($5::uuid IS NULL
        OR (d.received_at, d.id) < (SELECT l.received_at, l.id FROM fleet.dead_letters l WHERE l.id = $5))
ORDER BY d.received_at DESC, d.id DESC LIMIT $6
"""


class DeadLetterStore:
    """Dead jobs and unusable results, raw but sealed."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def keep_dead(self, uow: UnitOfWork, letters: Sequence[DeadLetter]) -> None:
        """Keep each letter once by stream and entry, and mark the open jobs of new ones DEAD."""
        rows = [
            (_id(x.stream, x.entry_id), x.stream, x.entry_id, x.rail, x.job_id, x.error_class, x.fingerprint, x.message,
             x.deliveries, self._seal(x.stream, x.entry_id, x.body))
            for x in letters
        ]  # fmt: skip
        new = await uow.connection.fetch(_KEEP, *(list(column) for column in zip(*rows, strict=True)))
        dead = [row["job_id"] for row in new if row["job_id"] is not None]
        await uow.connection.execute(_BURY, dead, sorted({letter.rail for letter in letters}))

    async def keep_result(self, uow: UnitOfWork, delivery: Delivery, error_class: str) -> None:
        """Keep a result that cannot be used; its hold stays and the row is the alert's evidence."""
        job_id = delivery.result.job_id if delivery.result is not None else None
        row = (_id(delivery.stream, delivery.entry_id), delivery.stream, delivery.entry_id, delivery.rail, job_id,
               error_class, error_class, f"unusable result: {error_class}", delivery.deliveries,
               self._seal(delivery.stream, delivery.entry_id, delivery.body))  # fmt: skip
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
        rows = await uow.connection.fetch(
            _VIEW + _LIST, wanted.rail, wanted.error_class, wanted.fingerprint, wanted.state, after, limit
        )
        return [_view(row) for row in rows]

    async def find_letter(self, uow: UnitOfWork, letter_id: UUID) -> LetterView | None:
        """Return one letter, None where there is none."""
        row = await uow.connection.fetchrow(_VIEW + " WHERE d.id = $1", letter_id)
        return None if row is None else _view(row)

    def _seal(self, stream: str, entry_id: str, body: str) -> bytes:
        return self._vault.seal_bytes(body.encode(), bound_to=f"dead_letter:{stream}:{entry_id}")


def _id(stream: str, entry_id: str) -> UUID:
    return UUID(bytes=hashlib.blake2b(f"{stream}\x1f{entry_id}".encode(), digest_size=16).digest())


def _view(row: Any) -> LetterView:
    return LetterView(**dict(row))
