"""The audit journal in PostgreSQL: appended by a function of the database alone."""

from collections.abc import AsyncIterator, Sequence
from typing import Final
from uuid import UUID

from core.domain.audit import AuditEntry
from core.services.cursors import BIGINT_MAX
from core.services.on_call.audit import Act, AuditFilter, Head
from core.store.unit_of_work import UnitOfWork

_COLUMNS: Final = "tenant_id, seq, at, actor, action, subject, data, hash"
_WALK_PAGE: Final = 1000
_NARROWED: Final = ("tenant_id", "actor", "action", "subject")


class AuditStore:
    """See `core.services.on_call.audit.Journal`."""

    async def append(self, uow: UnitOfWork, acts: Sequence[Act]) -> None:
        """Append in order; the tenants' chains stay locked until the transaction ends."""
        if acts:
            await uow.connection.execute(
                "SELECT fleet.audit_append($1, $2, $3, $4, $5)",
                [act.tenant_id for act in acts],
                [act.actor for act in acts],
                [act.action for act in acts],
                [act.subject for act in acts],
                [act.text for act in acts],
            )

    async def freeze(self, uow: UnitOfWork) -> None:
        """See one moment until the transaction ends: what is appended meanwhile is no fault."""
        await uow.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    async def heads(self, uow: UnitOfWork, tenant_id: UUID | None) -> list[Head]:
        """Return where each chain ends."""
        rows = await uow.connection.fetch(
            "SELECT tenant_id, seq, hash FROM fleet.audit_heads WHERE $1::uuid IS NULL OR tenant_id = $1"
            " ORDER BY tenant_id",
            tenant_id,
        )
        return [Head(*row) for row in rows]

    async def tenants_with_entries(self, uow: UnitOfWork, tenant_id: UUID | None) -> list[UUID]:
        """Return whose entries there are, whatever the heads say."""
        rows = await uow.connection.fetch(
            "SELECT DISTINCT tenant_id FROM fleet.audit_entries WHERE $1::uuid IS NULL OR tenant_id = $1", tenant_id
        )
        return [row["tenant_id"] for row in rows]

    async def page(
        self, uow: UnitOfWork, wanted: AuditFilter, before: tuple[UUID, int] | None, limit: int
    ) -> list[AuditEntry]:
        """Return entries, newest first; `before` is tenant and number of the last one of the page before."""
        conditions, arguments = ["true"], []
        for name in _NARROWED:
            if (value := getattr(wanted, name)) is not None:
                arguments.append(value)
                conditions.append(f"{name} = ${len(arguments)}")
        if before is not None:
            arguments += before
            place = len(arguments)
            conditions.append(
                f"(at, tenant_id, seq) < (SELECT at, tenant_id, seq FROM fleet.audit_entries"  # noqa: S608 - numbers
                f" WHERE tenant_id = ${place - 1} AND seq = ${place})"
            )
        rows = await uow.connection.fetch(
            f"SELECT {_COLUMNS} FROM fleet.audit_entries WHERE {' AND '.join(conditions)}"  # noqa: S608 - constants
            f" ORDER BY at DESC, tenant_id DESC, seq DESC LIMIT {limit:d}",
            *arguments,
        )
        return [AuditEntry(*row) for row in rows]

    async def stretch(self, uow: UnitOfWork, tenant_id: UUID, after: int, upto: int) -> list[AuditEntry]:
        """Return the next entries of a chain, in order."""
        rows = await uow.connection.fetch(
            f"SELECT {_COLUMNS} FROM fleet.audit_entries"  # noqa: S608 - constants
            f" WHERE tenant_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT {_WALK_PAGE}",
            tenant_id,
            after,
            upto,
        )
        return [AuditEntry(*row) for row in rows]

    async def walk(self, uow: UnitOfWork, tenant_id: UUID) -> AsyncIterator[AuditEntry]:
        """Read a chain in order, a page at a time."""
        last = 0
        while entries := await self.stretch(uow, tenant_id, last, BIGINT_MAX):
            for entry in entries:
                yield entry
            last = entries[-1].seq
