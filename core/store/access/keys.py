"""Service keys in PostgreSQL. Secrets are sealed before they come here."""

from typing import Final
from uuid import UUID

import asyncpg

from core.services.access.keys import StoredKey
from core.store.database import Database, UnitOfWork

_COLUMNS: Final = (
    "id, tenant_id, kind, rail, name, operations, accounts, secret, secret_next, serves, acts_for_users,"
    " revoked_at IS NOT NULL"
)


class KeyStore:
    """Finds keys before the tenant is known; creates, rotates and revokes them under the worker role."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_key(self, key_id: str) -> StoredKey | None:
        """Return the key of any tenant."""
        async with self._database.acquire() as connection:
            row = await connection.fetchrow(
                f"SELECT {_COLUMNS} AS revoked FROM fleet.find_service_key($1)",  # noqa: S608 - a constant
                key_id,
            )
        return None if row is None else _key(row)

    async def insert_key(self, uow: UnitOfWork, key: StoredKey) -> None:
        """Insert a new key."""
        await uow.connection.execute(
            "INSERT INTO fleet.service_keys"
            " (id, tenant_id, kind, rail, name, operations, accounts, secret, serves, acts_for_users)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            key.id,
            key.tenant_id,
            key.kind,
            key.rail,
            key.name,
            list(key.operations),
            None if key.accounts is None else list(key.accounts),
            key.secret,
            None if key.serves is None else list(key.serves),
            key.acts_for_users,
        )

    async def set_secrets(self, uow: UnitOfWork, key_id: str, secret: bytes, secret_next: bytes | None) -> bool:
        """Replace the live secrets; False where there is no such key."""
        status: str = await uow.connection.execute(
            "UPDATE fleet.service_keys SET secret = $2, secret_next = $3, rotated_at = now() WHERE id = $1",
            key_id,
            secret,
            secret_next,
        )
        return status == "UPDATE 1"

    async def revoke_key(self, uow: UnitOfWork, key_id: str) -> bool:
        """Revoke for good; False where there is no live key of this id."""
        status: str = await uow.connection.execute(
            "UPDATE fleet.service_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL", key_id
        )
        return status == "UPDATE 1"

    async def list_keys(self, uow: UnitOfWork, tenant_id: UUID | None) -> list[StoredKey]:
        """Return the keys of a tenant, or all."""
        rows = await uow.connection.fetch(
            f"SELECT {_COLUMNS} AS revoked FROM fleet.service_keys"  # noqa: S608 - a constant
            " WHERE $1::uuid IS NULL OR tenant_id = $1 ORDER BY created_at, id",
            tenant_id,
        )
        return [_key(row) for row in rows]


def _key(row: asyncpg.Record) -> StoredKey:
    values = dict(row)
    values["operations"] = frozenset(values["operations"])
    values["accounts"] = None if values["accounts"] is None else frozenset(values["accounts"])
    values["serves"] = None if values["serves"] is None else frozenset(values["serves"])
    return StoredKey(**values)
