"""Routes and registrations, kept for a second: they change rarely and every payment needs them."""

import time
from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg

from core.services.problems import Refusal
from core.services.terms.routes import RailTerms, Route, RouteTerms, terms
from core.services.terms.set_routes import RouteTarget, RouteView
from core.store.database import UnitOfWork
from schemas.rails import RailRegistration

_ROUTES = """
SELECT r.*,
    (SELECT g.body FROM fleet.rail_registrations g WHERE g.rail = r.rail ORDER BY g.version DESC LIMIT 1) AS body,
    EXISTS (SELECT FROM fleet.rail_pauses p WHERE p.rail = r.rail AND p.operation IN ('*', r.operation))
        OR EXISTS (SELECT FROM fleet.rail_waits w WHERE w.rail = r.rail AND w.operation IN ('*', r.operation)
            AND w.holds_until > now() AND w.cause <> 'adapters') AS waits
FROM fleet.routes r
WHERE r.tenant_id = $1 AND r.enabled AND r.valid_from <= now() AND (r.valid_until IS NULL OR r.valid_until > now())
ORDER BY r.priority, r.valid_from DESC, r.id DESC
"""
_COLUMNS = (
    "id, operation, currency, rail, provider, provider_account, environment, enabled, valid_from, version, priority,"
    " min_amount_minor, max_amount_minor, payee_types, valid_until, created_by, name"
)
_LIST = f"""
SELECT {_COLUMNS} FROM fleet.routes WHERE tenant_id = $1
ORDER BY operation, currency, enabled DESC, priority, valid_from DESC, id DESC
"""  # noqa: S608 - a constant
# Taken before routes change, so that two people who set one at once leave one in force. Whoever waited for it judges
# by the statement's time: the transaction's is from before the wait.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('fleet.routes:' || $1::uuid))"
_IN_FORCE = f"""
SELECT {_COLUMNS} FROM fleet.routes
WHERE (tenant_id, operation, currency, rail, provider, provider_account, environment, priority)
        = ($1, $2, $3, $4, $5, $6, $7, $8)
    AND (min_amount_minor, max_amount_minor, payee_types, valid_until, name) IS NOT DISTINCT FROM
        ($9::bigint, $10::bigint, $11::text[], $12::timestamptz, $14::text)
    AND enabled AND valid_from <= coalesce($13::timestamptz, statement_timestamp())
ORDER BY valid_from DESC, id DESC LIMIT 1
"""  # noqa: S608 - a constant
_DISABLE = """
UPDATE fleet.routes SET enabled = false
WHERE tenant_id = $1 AND operation = $2 AND currency = $3 AND enabled AND id IS DISTINCT FROM $4
    AND rail = coalesce($5, rail) AND name = coalesce($6, name)
"""
_SET = f"""
INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account, environment, priority,
    min_amount_minor, max_amount_minor, payee_types, valid_until, valid_from, name, created_by, version)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, coalesce($13, statement_timestamp()), $14, $15,
    1 + count(*) FROM fleet.routes WHERE tenant_id = $1 AND operation = $2 AND currency = $3 AND rail = $4
    AND name = $14
RETURNING {_COLUMNS}
"""  # noqa: S608 - a constant
_REGISTRATION = "SELECT body FROM fleet.rail_registrations WHERE rail = $1 ORDER BY version DESC LIMIT 1"


class RouteStore:
    """Answers from memory for `fresh_s` seconds."""

    def __init__(self, fresh_s: int = 1) -> None:
        self._fresh_s = fresh_s
        self._routes: dict[UUID, tuple[float, Mapping[tuple[str, str], Sequence[Route]]]] = {}
        self._terms: dict[tuple[str, str], tuple[float, RailTerms]] = {}

    async def routes_of(self, uow: UnitOfWork, tenant_id: UUID) -> Mapping[tuple[str, str], Sequence[Route]]:
        """Return the tenant's routes in force by (operation, currency); of equal priority, the newest first."""
        now = time.monotonic()
        kept = self._routes.get(tenant_id)
        if kept is not None and now - kept[0] < self._fresh_s:
            return kept[1]
        rows = await uow.connection.fetch(_ROUTES, tenant_id)
        found: dict[tuple[str, str], list[Route]] = {}
        for row in rows:
            found.setdefault((row["operation"], row["currency"]), []).append(_route(row))
        self._routes[tenant_id] = (now, found)
        return found

    async def terms_of(self, uow: UnitOfWork, rail: str, operation: str) -> RailTerms:
        """Return a rail's terms. Raises Refusal `rail_unavailable`."""
        now = time.monotonic()
        kept = self._terms.get((rail, operation))
        if kept is not None and now - kept[0] < self._fresh_s:
            return kept[1]
        registration = await self.registration_of(uow, rail)
        if registration is None:
            raise Refusal("rail_unavailable", f"no adapter has registered rail {rail}: start it and repeat")
        found = terms(registration, operation)
        self._terms[rail, operation] = (now, found)
        return found

    async def registration_of(self, uow: UnitOfWork, rail: str) -> RailRegistration | None:
        """Return what a rail's adapter registered last; None where none ever did."""
        body = await uow.connection.fetchval(_REGISTRATION, rail)
        return None if body is None else RailRegistration.model_validate_json(body)

    async def list_routes(self, uow: UnitOfWork, tenant_id: UUID) -> Sequence[RouteView]:
        """Return every route of the tenant, disabled ones too; of one operation and currency the newest first."""
        return [_view(row) for row in await uow.connection.fetch(_LIST, tenant_id)]

    async def replace_route(self, uow: UnitOfWork, target: RouteTarget) -> RouteView:
        """Put this route in force; the one in force stays as it is. See RouteTarget for what it ends."""
        await uow.connection.execute(_LOCK, target.tenant_id)
        terms, types = target.terms, target.terms.payee_types
        key = (target.tenant_id, target.operation, target.currency)
        wanted = (
            *key, target.rail, target.provider, target.provider_account, target.environment, terms.priority,
            terms.min_amount_minor, terms.max_amount_minor, None if types is None else sorted(types),
            target.valid_until, target.valid_from, target.name,
        )  # fmt: skip
        kept = await uow.connection.fetchrow(_IN_FORCE, *wanted)
        if target.ends_others:
            others = (None, None) if target.alone else (target.rail, target.name)
            await uow.connection.execute(_DISABLE, *key, None if kept is None else kept["id"], *others)
        row = kept or await uow.connection.fetchrow(_SET, *wanted, target.actor)
        if row is None:
            raise LookupError("an inserted route was not returned")
        return _view(row)

    async def disable_routes(
        self, uow: UnitOfWork, tenant_id: UUID, operation: str, currency: str, rail: str | None, name: str | None
    ) -> int:
        """Disable what is in force, or will be, of one rail or of all, of one name or of all; return how many were."""
        await uow.connection.execute(_LOCK, tenant_id)
        done: str = await uow.connection.execute(_DISABLE, tenant_id, operation, currency, None, rail, name)
        return int(done.rsplit(" ", 1)[1])


def _view(row: asyncpg.Record) -> RouteView:
    return RouteView(*row)


def _route(row: asyncpg.Record) -> Route:
    types = row["payee_types"]
    return Route(
        rail=row["rail"],
        provider=row["provider"],
        provider_account=row["provider_account"],
        environment=row["environment"],
        registration=None if row["body"] is None else RailRegistration.model_validate_json(row["body"]),
        terms=RouteTerms(
            row["priority"],
            row["min_amount_minor"],
            row["max_amount_minor"],
            None if types is None else frozenset(types),
        ),
        waits=row["waits"],
    )
