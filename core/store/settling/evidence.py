"""Evidence and dead letters in PostgreSQL, sealed under the master key."""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

import orjson

from core.services.vault_port import Vault
from core.store.database import UnitOfWork
from schemas.rails import EvidenceItem

_INSERT: Final = """
INSERT INTO fleet.evidence (id, tenant_id, rail, job_id, kind, ciphertext)
SELECT e.id, coalesce(j.tenant_id, '00000000-0000-0000-0000-000000000000'), $5, j.id, e.kind, e.ciphertext
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[]) AS e(id, job_id, kind, ciphertext)
LEFT JOIN fleet.jobs j ON j.id = e.job_id AND j.rail = $5
ON CONFLICT (id) DO NOTHING
"""

_SERVED: Final = "SELECT id FROM fleet.jobs WHERE id = ANY($1::uuid[]) AND rail = $2 AND tenant_id = ANY($3::uuid[])"


class EvidenceStore:
    """Raw answers and names, encrypted, found by id."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def insert_evidence(self, uow: UnitOfWork, rail: str, items: Sequence[EvidenceItem]) -> None:
        """Keep each item once; a repeat of an id changes nothing. A foreign job is not linked."""
        sealed = [
            self._vault.seal_bytes(
                orjson.dumps({"payee_name": item.payee_name, "raw": item.raw}), bound_to=f"evidence:{item.id}"
            )
            for item in items
        ]
        ids = [item.id for item in items]
        jobs = [item.job_id for item in items]
        await uow.connection.execute(_INSERT, ids, jobs, [item.kind for item in items], sealed, rail)

    async def served_jobs(
        self, uow: UnitOfWork, rail: str, items: Sequence[EvidenceItem], tenants: Collection[UUID]
    ) -> set[UUID | None]:
        """Return which jobs of the items are the rail's and of these tenants; None, for no job, is among them."""
        jobs = [item.job_id for item in items if item.job_id is not None]
        return {None, *(row["id"] for row in await uow.connection.fetch(_SERVED, jobs, rail, list(tenants)))}

    async def payee_name(self, uow: UnitOfWork, evidence_id: UUID) -> str | None:
        """Return the name in an evidence, None where there is none."""
        sealed = await uow.connection.fetchval("SELECT ciphertext FROM fleet.evidence WHERE id = $1", evidence_id)
        if sealed is None:
            return None
        name = orjson.loads(self._vault.open_bytes(sealed, bound_to=f"evidence:{evidence_id}"))["payee_name"]
        return None if name is None else str(name)
