"""Files that pay, in PostgreSQL, sealed: one live file for a reference, and bytes that never change."""

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from core.services.vault_port import Vault
from core.store.database import UnitOfWork
from schemas.files import FileHeld, FileMember

# Who comes second is told so by a missing row: an error would be noise in the log of a server that did its work.
_INSERT: Final = """
INSERT INTO fleet.rail_files (id, rail, message_id, ciphertext) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING RETURNING id
"""
# In the order of references: two files with the same members wait for each other and never deadlock.
_INSERT_MEMBERS: Final = """
WITH known AS (
    SELECT j.tenant_id, j.rail, j.id, j.reference
    FROM unnest($3::uuid[], $4::text[]) AS m(job_id, reference)
    JOIN fleet.jobs j ON j.id = m.job_id AND j.reference = m.reference AND j.rail = $2 AND j.closed_at IS NULL
    WHERE $5::uuid[] IS NULL OR j.tenant_id = ANY ($5)
), stored AS (
    INSERT INTO fleet.rail_file_members (file_id, tenant_id, rail, job_id, reference)
    SELECT $1, tenant_id, rail, id, reference FROM known ORDER BY reference
    ON CONFLICT (rail, reference) WHERE live DO NOTHING RETURNING reference
)
SELECT (SELECT count(*) FROM known) AS known, (SELECT count(*) FROM stored) AS stored
"""
_HOLDING: Final = """
SELECT m.reference, m.job_id, f.id, f.message_id, extract(epoch FROM now() - f.stored_at)::float8 AS age_s,
       f.state = 'BURIED' AS buried
FROM fleet.rail_file_members m JOIN fleet.rail_files f ON f.id = m.file_id
WHERE m.rail = $1 AND m.reference = ANY($2) AND m.live
    AND ($3::uuid[] IS NULL OR EXISTS (SELECT FROM fleet.jobs j WHERE j.id = m.job_id AND j.tenant_id = ANY ($3)))
"""
# What was decided against must not be paid by a file that is handed in again.
_AGAIN: Final = """
UPDATE fleet.rail_files f SET resends = resends + 1
WHERE f.id = $1 AND f.rail = $2 AND f.state = 'LIVE' AND NOT EXISTS (
    SELECT FROM fleet.rail_file_members m
    JOIN fleet.jobs j ON j.id = m.job_id
    JOIN fleet.intents i ON i.id = j.intent_id
    WHERE m.file_id = f.id AND (i.decision = 'VOID' OR i.state IN ('FAILED', 'CANCELLED', 'EXPIRED')))
RETURNING ciphertext
"""
_GIVE_UP: Final = """
WITH given_up AS (
    UPDATE fleet.rail_files SET state = 'GIVEN_UP'
    WHERE id = $1 AND rail = $2 AND (state = 'GIVEN_UP' OR resends = 0) RETURNING id
), freed AS (
    UPDATE fleet.rail_file_members m SET live = false FROM given_up g WHERE m.file_id = g.id
)
SELECT EXISTS (SELECT FROM given_up)
"""


# It takes the one live place of its reference, under a name that no file has.
_BURY: Final = """
WITH served AS (
    -- Whoever serves some tenants alone buries what is its payment's own, and nothing of anybody else's.
    SELECT WHERE $5::uuid[] IS NULL OR EXISTS (
        SELECT FROM fleet.jobs j JOIN fleet.jobs paying ON paying.intent_id = j.intent_id
        WHERE j.id = $3 AND j.rail = $2 AND j.tenant_id = ANY ($5) AND paying.rail = $2 AND paying.reference = $4)
), made AS (
    INSERT INTO fleet.rail_files (id, rail, message_id, ciphertext, state)
    SELECT $1, $2, 'buried:' || $4::text, '', 'BURIED' FROM served
    ON CONFLICT (rail, message_id) DO NOTHING RETURNING id, tenant_id
), buried AS (
    INSERT INTO fleet.rail_file_members (file_id, tenant_id, rail, job_id, reference)
    SELECT id, tenant_id, $2, $3, $4 FROM made
    ON CONFLICT (rail, reference) WHERE live DO NOTHING RETURNING file_id
)
SELECT EXISTS (SELECT FROM served) AS served, EXISTS (SELECT FROM buried) AS buried
"""
_IS_BURIED: Final = """
SELECT EXISTS (SELECT FROM fleet.rail_files WHERE rail = $1 AND message_id = 'buried:' || $2::text)
"""


_IS_OF: Final = """
SELECT NOT EXISTS (SELECT FROM fleet.rail_file_members WHERE file_id = $1 AND rail = $2 AND tenant_id <> ALL ($3))
"""


class MemberTakenError(Exception):
    """A member is in a live file already; the transaction must not be committed."""


class MemberUnknownError(Exception):
    """A member is no open job of this rail and of the tenants asked for; the transaction must not be committed."""


class FileStore:
    """Files by id and by the references in them. `serves` are the tenants whose payments may be told, None for all."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def insert_file(
        self,
        uow: UnitOfWork,
        rail: str,
        file_id: UUID,
        message_id: str,
        body: str,
        members: Sequence[FileMember],
        serves: Collection[UUID] | None = None,
    ) -> None:
        """Store a file and its members. Raises MemberTakenError, MemberUnknownError."""
        sealed = self._vault.seal_bytes(body.encode(), bound_to=f"file:{file_id}")
        ids, references = [each.job_id for each in members], [each.reference for each in members]
        if await uow.connection.fetchval(_INSERT, file_id, rail, message_id, sealed) is None:
            raise MemberTakenError
        [counts] = await uow.connection.fetch(_INSERT_MEMBERS, file_id, rail, ids, references, serves)
        if counts["stored"] < counts["known"]:
            raise MemberTakenError
        if counts["known"] < len(members):
            raise MemberUnknownError

    async def holding(
        self, uow: UnitOfWork, rail: str, references: Sequence[str], serves: Collection[UUID] | None = None
    ) -> list[FileHeld]:
        """Return the live file of each reference that is in one."""
        rows = await uow.connection.fetch(_HOLDING, rail, references, serves)
        return [FileHeld(**row) for row in rows]

    async def is_of(self, uow: UnitOfWork, rail: str, file_id: UUID, serves: Collection[UUID]) -> bool:
        """Return whether every payment in the file is of these tenants."""
        return bool(await uow.connection.fetchval(_IS_OF, file_id, rail, serves))

    async def again(self, uow: UnitOfWork, rail: str, file_id: UUID) -> str | None:
        """Count one more handing in and return the bytes; None where it may not be."""
        sealed = await uow.connection.fetchval(_AGAIN, file_id, rail)
        if sealed is None:
            return None
        return self._vault.open_bytes(sealed, bound_to=f"file:{file_id}").decode()

    async def give_up(self, uow: UnitOfWork, rail: str, file_id: UUID) -> bool:
        """Let the members of a file go that never left; false where somebody handed it in again."""
        return bool(await uow.connection.fetchval(_GIVE_UP, file_id, rail))

    async def bury(
        self,
        uow: UnitOfWork,
        rail: str,
        file_id: UUID,
        member: FileMember,
        serves: Collection[UUID] | None = None,
    ) -> None:
        """See to it that no file ever holds a reference. Raises MemberTakenError where one does, or it is buried.

        Raises MemberUnknownError where it is of no payment of the tenants that are served.
        """
        scope = (file_id, rail, member.job_id, member.reference, serves)
        [found] = await uow.connection.fetch(_BURY, *scope)
        if not found["served"]:
            raise MemberUnknownError
        if not found["buried"]:
            raise MemberTakenError

    async def is_buried(self, uow: UnitOfWork, rail: str, reference: str) -> bool:
        """Return whether the reference was buried."""
        return bool(await uow.connection.fetchval(_IS_BURIED, rail, reference))
