"""Parked entries in PostgreSQL: sealed whole, locked while they are added again. Under the worker role."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from core.domain.context import Context
from core.services.settling.bus_ports import Parked
from core.services.vault_port import Vault
from core.store.database import Database, UnitOfWork
from schemas.envelope import ENVELOPE_VERSION
from schemas.streams import CORE_GROUP, shard_of, whole_stream

_CONTEXT: Final = Context(None, "parking")

_KEEP: Final = """
INSERT INTO fleet.parked_entries (stream, entry_id, tenant_id, rail, job_id, schema_version, fields)
SELECT p.stream, p.entry_id, coalesce(j.tenant_id, '00000000-0000-0000-0000-000000000000'), p.rail, j.id, p.version,
    p.fields
FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::int[], $6::bytea[])
    AS p(stream, entry_id, rail, job_id, version, fields)
LEFT JOIN fleet.jobs j ON j.id = p.job_id AND j.rail = p.rail
ON CONFLICT (stream, entry_id) DO NOTHING
"""

# What the core itself reads is told by its code, what adapters read by the newest registration.
_TAKE: Final = """
SELECT p.entry_id, p.job_id, p.schema_version, p.fields FROM fleet.parked_entries p
WHERE p.stream = $2 AND p.readded_at IS NULL AND CASE WHEN $3::int IS NOT NULL THEN p.schema_version = $3 ELSE (
    SELECT r.body -> 'schema_versions' @> to_jsonb(p.schema_version) FROM fleet.rail_registrations r
    WHERE r.rail = $1 ORDER BY r.version DESC LIMIT 1) END
ORDER BY p.parked_at LIMIT $4 FOR UPDATE OF p SKIP LOCKED
"""

_DROP_DECIDED: Final = """
UPDATE fleet.parked_entries p SET readded_at = now()
FROM fleet.jobs j WHERE p.stream = $1 AND p.readded_at IS NULL AND j.id = p.job_id AND j.closed_at IS NOT NULL
"""

# The job follows its entry, unless it moved on meanwhile.
_MARK: Final = """
WITH added AS (
    UPDATE fleet.parked_entries p SET readded_at = now(), readded_as = a.added
    FROM unnest($2::text[], $3::text[]) AS a(entry_id, added) WHERE p.stream = $1 AND p.entry_id = a.entry_id
    RETURNING p.job_id, p.entry_id, p.readded_as, p.rail
), held AS (
    SELECT j.id, a.readded_as, e.epoch FROM added a JOIN fleet.jobs j ON j.id = a.job_id
    LEFT JOIN fleet.stream_epochs e ON e.rail = $4
    WHERE j.state = 'QUEUED' AND j.stream = $5 AND j.entry_id = a.entry_id ORDER BY j.id FOR NO KEY UPDATE OF j
)
UPDATE fleet.jobs j SET entry_id = h.readded_as, stream_epoch = coalesce(h.epoch, 0), queued_at = now()
FROM held h WHERE j.id = h.id
"""


class TakenEntries:
    """Parked entries that are locked by this transaction; see `core.services.settling.bus_ports.ParkedBatch`."""

    def __init__(self, uow: UnitOfWork, entries: list[Parked], stream: str) -> None:
        self._uow, self._entries, self._stream = uow, entries, stream

    @property
    def entries(self) -> Sequence[Parked]:
        """The entries, the longest parked first."""
        return self._entries

    async def mark(self, entry_ids: Sequence[str]) -> None:
        """Record under which ids they were added, and let their jobs follow, in one statement."""
        old = [entry.entry_id for entry in self._entries]
        await self._uow.connection.execute(
            _MARK, self._stream, old, list(entry_ids), shard_of(self._stream), whole_stream(self._stream)
        )


class PostgresParking:
    """The ParkingStore of `core.services.settling.bus_ports`."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    async def keep_parked(self, uow: UnitOfWork, entries: Sequence[Parked]) -> None:
        """Keep each entry once, by stream and id."""
        rows = [
            (x.stream, x.entry_id, x.rail, x.job_id, x.version,
             self._vault.seal_bytes(x.fields.encode(), bound_to=_bound_to(x.stream, x.entry_id)))
            for x in entries
        ]  # fmt: skip
        if rows:
            await uow.connection.execute(_KEEP, *(list(column) for column in zip(*rows, strict=True)))

    @asynccontextmanager
    async def take_readable(self, rail: str, stream: str, group: str, limit: int) -> AsyncIterator[TakenEntries]:
        """Lock entries that somebody can read by now; those whose job is decided are done with."""
        own = ENVELOPE_VERSION if group == CORE_GROUP else None
        async with self._database.unit_of_work(_CONTEXT) as uow:
            await uow.connection.execute(_DROP_DECIDED, stream)
            found = await uow.connection.fetch(_TAKE, rail, stream, own, limit)
            entries = [
                Parked(rail, stream, row["entry_id"], row["job_id"], row["schema_version"],
                       self._vault.open_bytes(row["fields"], bound_to=_bound_to(stream, row["entry_id"])).decode())
                for row in found
            ]  # fmt: skip
            yield TakenEntries(uow, entries, stream)


def _bound_to(stream: str, entry_id: str) -> str:
    return f"parked_entry:{stream}:{entry_id}"
