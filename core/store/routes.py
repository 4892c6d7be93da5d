"""Routes and registrations, kept for a second: they change rarely and every payment needs them."""

import time
from collections.abc import Mapping
from uuid import UUID

from core.services.problems import Refusal
from core.services.routes import RailTerms, Route, terms
from core.store.database import UnitOfWork
from schemas.rails import RailRegistration

_ROUTES = """
SELECT DISTINCT ON (r.operation, r.currency)
    r.operation, r.currency, r.rail, r.provider, r.provider_account, r.environment,
    (SELECT g.body FROM fleet.rail_registrations g WHERE g.rail = r.rail ORDER BY g.version DESC LIMIT 1) AS body
FROM fleet.routes r
WHERE r.tenant_id = $1 AND r.enabled AND r.valid_from <= now()
ORDER BY r.operation, r.currency, r.valid_from DESC, r.id DESC
"""
_REGISTRATION = "SELECT body FROM fleet.rail_registrations WHERE rail = $1 ORDER BY version DESC LIMIT 1"


class RouteStore:
    """Answers from memory for `fresh_s` seconds."""

    def __init__(self, fresh_s: int = 1) -> None:
        self._fresh_s = fresh_s
        self._routes: dict[UUID, tuple[float, Mapping[tuple[str, str], Route]]] = {}
        self._terms: dict[tuple[str, str], tuple[float, RailTerms]] = {}

    async def routes_of(self, uow: UnitOfWork, tenant_id: UUID) -> Mapping[tuple[str, str], Route]:
        """Return the tenant's enabled routes by (operation, currency); of several, the newest."""
        now = time.monotonic()
        kept = self._routes.get(tenant_id)
        if kept is not None and now - kept[0] < self._fresh_s:
            return kept[1]
        rows = await uow.connection.fetch(_ROUTES, tenant_id)
        found = {
            (row["operation"], row["currency"]): Route(
                rail=row["rail"],
                provider=row["provider"],
                provider_account=row["provider_account"],
                environment=row["environment"],
                registration=None if row["body"] is None else RailRegistration.model_validate_json(row["body"]),
            )
            for row in rows
        }
        self._routes[tenant_id] = (now, found)
        return found

    async def terms_of(self, uow: UnitOfWork, rail: str, operation: str) -> RailTerms:
        """Return a rail's terms. Raises Refusal `rail_unavailable`."""
        now = time.monotonic()
        kept = self._terms.get((rail, operation))
        if kept is not None and now - kept[0] < self._fresh_s:
            return kept[1]
        body = await uow.connection.fetchval(_REGISTRATION, rail)
        if body is None:
            raise Refusal("rail_unavailable", f"no adapter has registered rail {rail}: start it and repeat")
        found = terms(RailRegistration.model_validate_json(body), operation)
        self._terms[rail, operation] = (now, found)
        return found
