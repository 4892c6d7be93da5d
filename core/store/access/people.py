"""People of the console and their sessions in PostgreSQL, under the worker role."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from core.domain.roles import Role
from core.services.access.people import Person, Session
from core.store.unit_of_work import UnitOfWork

_COLUMNS: Final = "id, tenant_id, name, role, secret, issuer, subject, created_by, created_at, revoked_at"
_INSERT: Final = """
INSERT INTO fleet.people (id, tenant_id, name, role, secret, issuer, subject, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING true
"""
_CHANGEABLE: Final = frozenset({"role", "secret", "tenant_id", "revoked_at"})
_SESSION: Final = f"""
SELECT {", ".join(f"p.{name}" for name in _COLUMNS.split(", "))}, s.hash, s.acting_tenant, s.seen_at, s.expires_at
FROM fleet.console_sessions s JOIN fleet.people p ON p.id = s.person_id WHERE s.hash = $1
"""  # noqa: S608 - constants
# Each failure beyond the free ones doubles the wait; a quiet hour forgets them.
_FAILED: Final = """
INSERT INTO fleet.console_attempts AS a (name_hash, failures) VALUES ($1, 1)
ON CONFLICT (name_hash) DO UPDATE SET last_at = now(),
    failures = CASE WHEN a.last_at < now() - interval '1 hour' THEN 1 ELSE a.failures + 1 END,
    blocked_until = CASE WHEN a.last_at < now() - interval '1 hour' OR a.failures + 1 < $2 THEN now()
        ELSE now() + make_interval(secs => least($3, power(2, least(a.failures + 1 - $2, 12)))) END
"""


class StoredPeople:
    """See `core.services.access.people.PeopleStore`."""

    async def insert(self, uow: UnitOfWork, person: Person) -> bool:
        """Insert; False where the name or the subject is somebody's."""
        values = (person.id, person.tenant_id, person.name, person.role, person.secret)
        return bool(await uow.connection.fetchval(_INSERT, *values, person.issuer, person.subject, person.created_by))

    async def find(self, uow: UnitOfWork, name: str) -> Person | None:
        """Return who has the name."""
        return _person(await uow.connection.fetchrow(f"SELECT {_COLUMNS} FROM fleet.people WHERE name = $1", name))  # noqa: S608

    async def find_subject(self, uow: UnitOfWork, issuer: str, subject: str) -> Person | None:
        """Return whom an identity provider means."""
        statement = f"SELECT {_COLUMNS} FROM fleet.people WHERE issuer = $1 AND subject = $2"  # noqa: S608 - constants
        return _person(await uow.connection.fetchrow(statement, issuer, subject))

    async def page(self, uow: UnitOfWork, tenant_id: UUID | None) -> list[Person]:
        """Return everybody of a tenant, or all, revoked ones too, by name."""
        statement = f"SELECT {_COLUMNS} FROM fleet.people WHERE $1::uuid IS NULL OR tenant_id = $1 ORDER BY name"  # noqa: S608
        return [found for row in await uow.connection.fetch(statement, tenant_id) if (found := _person(row))]

    async def change(self, uow: UnitOfWork, person_id: UUID, **changed: Any) -> None:
        """Change role, secret, tenant or revocation (`"now"`)."""
        if unknown := changed.keys() - _CHANGEABLE:
            raise TypeError(f"{', '.join(sorted(unknown))} of a person cannot be changed")
        now = [name for name, value in changed.items() if value == "now"]
        given = {name: value for name, value in changed.items() if name not in now}
        sets = [f"{name} = ${place}" for place, name in enumerate(given, 2)] + [f"{name} = now()" for name in now]
        statement = f"UPDATE fleet.people SET {', '.join(sets)} WHERE id = $1"  # noqa: S608 - names of _CHANGEABLE
        await uow.connection.execute(statement, person_id, *given.values())

    async def open_session(self, uow: UnitOfWork, session_hash: bytes, person: Person, expires_at: datetime) -> None:
        """Keep a session, and forget those of the person that have ended by time."""
        await uow.connection.execute(
            "DELETE FROM fleet.console_sessions WHERE person_id = $1 AND expires_at < now()", person.id
        )
        await uow.connection.execute(
            "INSERT INTO fleet.console_sessions (hash, tenant_id, person_id, expires_at) VALUES ($1, $2, $3, $4)",
            session_hash,
            person.tenant_id,
            person.id,
            expires_at,
        )

    async def find_session(self, uow: UnitOfWork, session_hash: bytes) -> Session | None:
        """Return the session with its person, whether its time is over or not."""
        row = await uow.connection.fetchrow(_SESSION, session_hash)
        person = _person(row)
        if row is None or person is None:
            return None
        return Session(row["hash"], person, row["acting_tenant"], row["seen_at"], row["expires_at"])

    async def touch_session(self, uow: UnitOfWork, session_hash: bytes) -> None:
        """Note that it is in use."""
        await uow.connection.execute("UPDATE fleet.console_sessions SET seen_at = now() WHERE hash = $1", session_hash)

    async def act_in(self, uow: UnitOfWork, session_hash: bytes, tenant_id: UUID) -> None:
        """Note whose payments it looks at."""
        statement = "UPDATE fleet.console_sessions SET acting_tenant = $2 WHERE hash = $1"
        await uow.connection.execute(statement, session_hash, tenant_id)

    async def end_session(self, uow: UnitOfWork, session_hash: bytes) -> bool:
        """End it; False where it has ended."""
        done: str = await uow.connection.execute("DELETE FROM fleet.console_sessions WHERE hash = $1", session_hash)
        return done == "DELETE 1"

    async def end_sessions(self, uow: UnitOfWork, person_id: UUID) -> int:
        """End all of a person's; return how many."""
        done: str = await uow.connection.execute("DELETE FROM fleet.console_sessions WHERE person_id = $1", person_id)
        return int(done.rsplit(" ", 1)[1])

    async def blocked_s(self, uow: UnitOfWork, name_hash: bytes) -> int:
        """Return for how many seconds no password of this name is looked at; 0: it is."""
        found: int | None = await uow.connection.fetchval(
            "SELECT ceil(extract(epoch FROM blocked_until - now()))::int FROM fleet.console_attempts"
            " WHERE name_hash = $1 AND blocked_until > now()",
            name_hash,
        )
        return found or 0

    async def note_failure(self, uow: UnitOfWork, name_hash: bytes, free: int, longest_s: int) -> None:
        """Count a wrong password; from the `free`-th on the name has to wait, at most `longest_s`."""
        await uow.connection.execute(_FAILED, name_hash, free, longest_s)

    async def forget_failures(self, uow: UnitOfWork, name_hash: bytes) -> None:
        """Forget what was wrong before: the right password came."""
        await uow.connection.execute("DELETE FROM fleet.console_attempts WHERE name_hash = $1", name_hash)


def _person(row: asyncpg.Record | None) -> Person | None:
    if row is None:
        return None
    return Person(
        id=row["id"],
        tenant_id=row["tenant_id"],
        name=row["name"],
        role=Role(row["role"]),
        secret=row["secret"],
        issuer=row["issuer"],
        subject=row["subject"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )
