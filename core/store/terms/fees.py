"""Fee rules in PostgreSQL: versions that are only added, and one revision per tenant that rises with each."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from core.domain.refunds import RuleVersion
from core.services.terms.fees import BookState, StoredRule
from core.store.database import UnitOfWork
from schemas.fees import FeeRuleRequest

_COLUMNS: Final = "r.rule_id, r.version, r.name, r.enabled, r.body, r.valid_from, r.created_at, r.created_by"
_STATE: Final = """
SELECT coalesce(b.revision, 0) AS revision, t.business_timezone, now() AS now
FROM fleet.tenants t LEFT JOIN fleet.fee_books b USING (tenant_id) WHERE t.tenant_id = $1
"""
# Serializes the writers of a tenant: the second waits here, and reads its predecessor's version afterwards.
_LOCK: Final = """
INSERT INTO fleet.fee_books AS b (tenant_id, revision) VALUES ($1, 1)
ON CONFLICT (tenant_id) DO UPDATE SET revision = b.revision + 1
RETURNING clock_timestamp()
"""
_LOAD: Final = f"""
SELECT {_COLUMNS} FROM fleet.fee_rules r
WHERE r.tenant_id = $1 AND r.version >= coalesce((
    SELECT max(c.version) FROM fleet.fee_rules c
    WHERE c.rule_id = r.rule_id AND c.valid_from <= coalesce($2, now() - $3::interval)), 1)
ORDER BY r.rule_id, r.version DESC
"""  # noqa: S608 - a constant
_LATEST: Final = f"""
SELECT DISTINCT ON (r.rule_id) {_COLUMNS} FROM fleet.fee_rules r
WHERE r.tenant_id = $1 ORDER BY r.rule_id, r.version DESC
"""  # noqa: S608 - a constant
_VERSIONS: Final = f"""
SELECT {_COLUMNS} FROM fleet.fee_rules r WHERE r.tenant_id = $1 AND r.rule_id = $2 ORDER BY r.version DESC
"""  # noqa: S608 - a constant
_INSERT: Final = """
INSERT INTO fleet.fee_rules
    (tenant_id, rule_id, version, name, operation, currency, enabled, body, valid_from, created_at, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
_RETURNING: Final = """
SELECT r.rule_id, r.version
FROM unnest($1::uuid[], $2::int[]) AS v(rule_id, version) JOIN fleet.fee_rules r USING (rule_id, version)
WHERE r.body->>'on_refund' = 'RETURNED'
"""
_SKEW: Final = timedelta(minutes=1)
"""A transaction that began earlier prices at its own beginning: what was in force then is kept as well."""


class FeeRuleStore:
    """The fee rules of tenants."""

    async def book_state(self, uow: UnitOfWork, tenant_id: UUID) -> BookState:
        """Return the revision, 0 where no rule was ever set, and the tenant's timezone. Raises LookupError."""
        row = await uow.connection.fetchrow(_STATE, tenant_id)
        if row is None:
            raise LookupError("there is no such tenant")
        return BookState(row["revision"], ZoneInfo(row["business_timezone"]), row["now"])

    async def tiers_of(self, uow: UnitOfWork, wallet_ids: Sequence[UUID]) -> Mapping[UUID, str]:
        """Return the tier of each of the wallets that has one: most have none."""
        rows = await uow.connection.fetch(
            "SELECT id, tier FROM fleet.wallets WHERE tenant_id = $1 AND id = ANY ($2::uuid[]) AND tier <> ''",
            uow.context.tenant_id,
            wallet_ids,
        )
        return {row["id"]: row["tier"] for row in rows}

    async def load_rules(self, uow: UnitOfWork, tenant_id: UUID, at: datetime | None = None) -> Sequence[StoredRule]:
        """Return every version in force at a moment (left out: now) or later, by rule, the newest first."""
        return [_rule(row) for row in await uow.connection.fetch(_LOAD, tenant_id, at, _SKEW)]

    async def lock_book(self, uow: UnitOfWork, tenant_id: UUID) -> datetime:
        """Raise the revision, one writer at a time; return the time after the wait."""
        now: datetime = await uow.connection.fetchval(_LOCK, tenant_id)
        return now

    async def versions_of(self, uow: UnitOfWork, tenant_id: UUID, rule_id: UUID) -> Sequence[StoredRule]:
        """Return every version of a rule, the newest first."""
        return [_rule(row) for row in await uow.connection.fetch(_VERSIONS, tenant_id, rule_id)]

    async def latest_rules(self, uow: UnitOfWork, tenant_id: UUID) -> Sequence[StoredRule]:
        """Return the newest version of every rule."""
        return [_rule(row) for row in await uow.connection.fetch(_LATEST, tenant_id)]

    async def rules_that_return(self, uow: UnitOfWork, versions: Sequence[RuleVersion]) -> frozenset[RuleVersion]:
        """Return those of the versions whose fees go back with a refund."""
        rows = await uow.connection.fetch(_RETURNING, [each[0] for each in versions], [each[1] for each in versions])
        return frozenset((row["rule_id"], row["version"]) for row in rows)

    async def insert_version(self, uow: UnitOfWork, tenant_id: UUID, rule: StoredRule) -> None:
        """Add a version."""
        await uow.connection.execute(
            _INSERT,
            tenant_id,
            rule.id,
            rule.version,
            rule.name,
            rule.request.operation,
            rule.request.currency,
            rule.enabled,
            rule.request.model_dump_json(),
            rule.valid_from,
            rule.created_at,
            rule.created_by,
        )


def _rule(row: asyncpg.Record) -> StoredRule:
    return StoredRule(
        id=row["rule_id"],
        version=row["version"],
        name=row["name"],
        enabled=row["enabled"],
        request=FeeRuleRequest.model_validate_json(row["body"]),
        valid_from=row["valid_from"],
        created_at=row["created_at"],
        created_by=row["created_by"],
    )
