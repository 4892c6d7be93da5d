"""Limits in PostgreSQL: versions that are only added, counters that batches lock and change in one statement each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from core.domain.limits import Payer, Usage, UsageKey
from core.services.ledger_port import TrustMisplacedError
from core.services.terms.limits import BookState, LimitBook, StoredLimit, Take, UsageMove
from core.services.terms.quotas import Quotas
from core.store.columns import spare
from core.store.database import UnitOfWork
from schemas.limits import LimitRequest, QuotaObject

_COLUMNS: Final = "l.limit_id, l.version, l.name, l.enabled, l.body, l.timezone, l.created_at, l.created_by"
_STATE: Final = """
SELECT coalesce((SELECT revision FROM fleet.limit_books WHERE tenant_id = $1), 0) AS revision,
    coalesce((SELECT business_timezone FROM fleet.tenants WHERE tenant_id = $1), 'UTC') AS business_timezone
"""
# Serializes the writers of a tenant: the second waits here, and reads its predecessor's version afterwards.
_LOCK: Final = """
INSERT INTO fleet.limit_books AS b (tenant_id, revision) VALUES ($1, 1)
ON CONFLICT (tenant_id) DO UPDATE SET revision = b.revision + 1
RETURNING clock_timestamp()
"""
_LATEST: Final = f"""
SELECT DISTINCT ON (l.limit_id) {_COLUMNS} FROM fleet.limits l
WHERE l.tenant_id = $1 ORDER BY l.limit_id, l.version DESC
"""  # noqa: S608 - a constant
_VERSIONS: Final = f"""
SELECT {_COLUMNS} FROM fleet.limits l WHERE l.tenant_id = $1 AND l.limit_id = $2 ORDER BY l.version DESC
"""  # noqa: S608 - a constant
_INSERT: Final = """
INSERT INTO fleet.limits (tenant_id, limit_id, version, name, enabled, body, timezone, created_at, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
# The routes that are in force or will be, by what their rails' adapters registered last.
_CALENDAR: Final = """
SELECT CASE count(DISTINCT z.zone) WHEN 1 THEN min(z.zone)
    ELSE coalesce((SELECT business_timezone FROM fleet.tenants WHERE tenant_id = $1), 'UTC') END
FROM fleet.routes r CROSS JOIN LATERAL (
    SELECT coalesce(g.body->'operations'->r.operation->>'business_timezone', 'UTC') AS zone
    FROM (SELECT body FROM fleet.rail_registrations WHERE rail = r.rail ORDER BY version DESC LIMIT 1) g
    WHERE g.body->'operations' ? r.operation) z
WHERE r.tenant_id = $1 AND r.operation = $2 AND r.currency = $3 AND r.enabled
    AND (r.valid_until IS NULL OR r.valid_until > statement_timestamp())
"""
_READ: Final = """
SELECT u.limit_id, u.subject, u.period, u.held_minor, u.used_minor, u.held_count, u.used_count
FROM fleet.limit_usage u
WHERE (u.limit_id, u.subject, u.period) IN (
    SELECT k.limit_id, k.subject COLLATE "C", k.period
    FROM unnest($1::uuid[], $2::text[], $3::date[]) AS k(limit_id, subject, period))
"""
_TAKE: Final = "fleet.take_limit_usage($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
_TAKE_ALIKE: Final = "fleet.take_limit_usage_alike($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_MANY: Final = 16  # subjects, from here on dearer to send for each limit than to spread over them there
_MOVE: Final = "SELECT fleet.move_limit_usage($1, $2, $3, $4, $5, $6, $7)"
_MOVE_LOCKED: Final = "SELECT fleet.move_locked_limit_usage($1, $2, $3, $4, $5, $6, $7)"
# Taken after the object was made: whoever waits here counts what those before it committed.
_COUNT_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('fleet.quota:' || $1::uuid || ':' || $2::text, 0))"
_COUNT: Final = {
    QuotaObject.WALLETS: "SELECT count(*) FROM (SELECT FROM fleet.wallets WHERE tenant_id = $1 LIMIT $2) w",
    QuotaObject.KEYS: "SELECT count(*) FROM (SELECT FROM fleet.service_keys"
    " WHERE tenant_id = $1 AND kind = 'service' AND revoked_at IS NULL LIMIT $2) k",
    QuotaObject.WEBHOOK_ENDPOINTS: "SELECT count(*) FROM (SELECT FROM fleet.webhook_endpoints"
    " WHERE tenant_id = $1 AND deleted_at IS NULL LIMIT $2) e",
    QuotaObject.FEE_RULES: "SELECT count(*) FROM (SELECT FROM (SELECT DISTINCT ON (rule_id) enabled"
    " FROM fleet.fee_rules WHERE tenant_id = $1 ORDER BY rule_id, version DESC) newest WHERE enabled LIMIT $2) f",
    QuotaObject.LIMITS: "SELECT count(*) FROM (SELECT FROM (SELECT DISTINCT ON (limit_id) enabled FROM fleet.limits"
    " WHERE tenant_id = $1 ORDER BY limit_id, version DESC) newest WHERE enabled LIMIT $2) l",
    QuotaObject.ROUTES: "SELECT count(*) FROM (SELECT FROM fleet.routes WHERE tenant_id = $1 AND enabled"
    " AND (valid_until IS NULL OR valid_until > statement_timestamp()) LIMIT $2) r",
}
# What every intent has at the counters, by its state, against what the counters say. One statement is one snapshot.
_PROOF: Final = """
WITH parts AS (
    SELECT i.state, (h.part->>0)::uuid AS limit_id, h.part->>1 AS subject, (h.part->>2)::date AS period,
        (h.part->>3)::bigint AS amount, (h.part->>4)::integer AS number
    FROM fleet.intents i CROSS JOIN jsonb_array_elements(i.limits->'held') AS h(part)
    WHERE i.limits ? 'held' AND i.state NOT IN ('FAILED', 'CANCELLED', 'EXPIRED')
), sums AS (
    SELECT limit_id, subject, period,
        coalesce(sum(amount) FILTER (WHERE state <> 'SETTLED' AND amount > 0), 0) AS held_minor,
        coalesce(sum(amount) FILTER (WHERE state = 'SETTLED'), 0) AS used_minor,
        coalesce(sum(number) FILTER (WHERE state <> 'SETTLED' AND amount > 0), 0) AS held_count,
        coalesce(sum(number) FILTER (WHERE state = 'SETTLED'), 0) AS used_count
    FROM parts GROUP BY limit_id, subject, period
)
SELECT limit_id, subject, period,
    format('counters say %s/%s/%s/%s, intents say %s/%s/%s/%s', u.held_minor, u.used_minor, u.held_count, u.used_count,
        s.held_minor, s.used_minor, s.held_count, s.used_count) AS detail
FROM fleet.limit_usage u FULL JOIN sums s USING (limit_id, subject, period)
WHERE (coalesce(u.held_minor, 0), coalesce(u.used_minor, 0), coalesce(u.held_count, 0), coalesce(u.used_count, 0))
    <> (coalesce(s.held_minor, 0), coalesce(s.used_minor, 0), coalesce(s.held_count, 0), coalesce(s.used_count, 0))
ORDER BY limit_id, subject, period
"""


@dataclass(frozen=True, slots=True)
class UsageDiffers:
    """A counter that is not the sum of what intents have at it: held/used minor, held/used count."""

    limit_id: UUID
    subject: str
    period: str
    detail: str


class LimitStore:
    """The limits and counters of tenants."""

    async def book_state(self, uow: UnitOfWork, tenant_id: UUID) -> BookState:
        """Return the revision, 0 where no limit was ever set, and the tenant's timezone, UTC where none is known."""
        row = (await uow.connection.fetch(_STATE, tenant_id))[0]
        return BookState(row["revision"], ZoneInfo(row["business_timezone"]))

    async def latest_limits(self, uow: UnitOfWork, tenant_id: UUID) -> Sequence[StoredLimit]:
        """Return the newest version of every limit."""
        return [_limit(row) for row in await uow.connection.fetch(_LATEST, tenant_id)]

    async def versions_of(self, uow: UnitOfWork, tenant_id: UUID, limit_id: UUID) -> Sequence[StoredLimit]:
        """Return every version of a limit, the newest first."""
        return [_limit(row) for row in await uow.connection.fetch(_VERSIONS, tenant_id, limit_id)]

    async def lock_book(self, uow: UnitOfWork, tenant_id: UUID) -> datetime:
        """Raise the revision, one writer at a time; return the time after the wait."""
        now: datetime = await uow.connection.fetchval(_LOCK, tenant_id)
        return now

    async def calendar_of(self, uow: UnitOfWork, tenant_id: UUID, operation: str | None, currency: str) -> str:
        """Return the zone of the rails of an operation's routes where they agree, else the tenant's."""
        found: str = await uow.connection.fetchval(_CALENDAR, tenant_id, operation, currency)
        return found

    async def insert_version(self, uow: UnitOfWork, tenant_id: UUID, limit: StoredLimit) -> None:
        """Add a version."""
        body = limit.request.model_dump_json()
        await uow.connection.execute(
            _INSERT, tenant_id, limit.id, limit.version, limit.name, limit.enabled, body, limit.timezone,
            limit.created_at, limit.created_by,
        )  # fmt: skip

    async def payers_of(self, uow: UnitOfWork, wallet_ids: Sequence[UUID]) -> dict[UUID, Payer]:
        """Return owner and tier of wallets that exist."""
        rows = await uow.connection.fetch(
            "SELECT id, owner, tier FROM fleet.wallets WHERE id = ANY ($1::uuid[])", wallet_ids
        )
        return {row["id"]: Payer(*row) for row in rows}

    async def take_usage(self, uow: UnitOfWork, takes: Sequence[Take]) -> bool:
        """Add to all counters, made where they are missing, if all of it fits; else change nothing: False.

        A unit of work that is trusting hears that all of it fits; its end raises TrustMisplacedError if not.
        """
        call, columns = _take_call(takes)
        if uow.trusting:
            await uow.at_last(call, *columns, refused=TrustMisplacedError)
            return True
        return bool(await uow.connection.fetchval(f"SELECT {call}", *columns))

    async def lock_usage(self, uow: UnitOfWork, keys: Sequence[tuple[UUID, UsageKey]]) -> dict[UsageKey, Usage]:
        """Return the counters, locked in the one order; made, under their tenant, where they are missing."""
        rows = await uow.connection.fetch(
            "SELECT * FROM fleet.lock_limit_usage($1, $2, $3, $4)",
            [tenant_id for tenant_id, _ in keys],
            *_columns([key for _, key in keys]),
        )
        if len(rows) != len(keys):
            raise LookupError("a counter was not returned")
        return {UsageKey(row[0], row[1], row[2]): Usage(row[3], row[4]) for row in rows}

    async def move_usage(self, uow: UnitOfWork, moves: Mapping[UsageKey, UsageMove], *, locked: bool) -> bool:
        """Add to the counters, which the transaction may have locked already; False where one is missing."""
        each = list(moves.values())
        done: bool = await uow.connection.fetchval(
            _MOVE_LOCKED if locked else _MOVE,
            *_columns(list(moves)),
            [move.held_minor for move in each],
            [move.used_minor for move in each],
            [move.held_count for move in each],
            [move.used_count for move in each],
        )
        return done

    async def read_usage(self, uow: UnitOfWork, keys: Sequence[UsageKey]) -> dict[UsageKey, UsageMove]:
        """Return the counters that exist, unlocked."""
        rows = await uow.connection.fetch(_READ, *_columns(keys)) if keys else []
        return {UsageKey(row[0], row[1], row[2]): UsageMove(row[3], row[4], row[5], row[6]) for row in rows}

    async def count_objects(self, uow: UnitOfWork, tenant_id: UUID, what: QuotaObject, enough: int) -> int:
        """Return how many exist, `enough` at most; who counts waits for who counted before it to commit."""
        await uow.connection.execute(_COUNT_LOCK, tenant_id, what)
        found: int = await uow.connection.fetchval(_COUNT[what], tenant_id, enough)
        return found

    async def set_tier(self, uow: UnitOfWork, tenant_id: UUID, wallet_id: UUID, tier: str) -> bool:
        """Set the tier; False where there is no such wallet."""
        text = "UPDATE fleet.wallets SET tier = $3 WHERE tenant_id = $1 AND id = $2 RETURNING true"
        return bool(await uow.connection.fetchval(text, tenant_id, wallet_id, tier))

    async def wallet_currency(self, uow: UnitOfWork, tenant_id: UUID, wallet_id: UUID) -> str | None:
        """Return the wallet's currency; None where there is no such wallet."""
        text = "SELECT currency FROM fleet.wallets WHERE tenant_id = $1 AND id = $2"
        found: str | None = await uow.connection.fetchval(text, tenant_id, wallet_id)
        return found

    async def verify(self, uow: UnitOfWork) -> list[UsageDiffers]:
        """Return every counter that is not the sum over the intents, among all that the role may see."""
        rows = await uow.connection.fetch(_PROOF)
        return [UsageDiffers(row["limit_id"], row["subject"], str(row["period"]), row["detail"]) for row in rows]


def stored_quotas() -> Quotas:
    """Return the quotas as they are stored, for a use case outside a running core."""
    return Quotas(LimitBook(LimitStore()), LimitStore())


def _take_call(takes: Sequence[Take]) -> tuple[str, list[list[Any]]]:
    # A batch asks few limits for room: each is sent once, and a counter names its place among them; or all have the
    # same counters.
    first = takes[0].sums
    alike = len(first) >= _MANY and len(takes) > 1 and all(take.sums == first for take in takes)
    sent = takes[:1] if alike else takes
    places = [place for place, take in enumerate(takes, start=1) for _ in take.sums] if not alike else None
    sums = [each for take in sent for each in take.sums.values()]
    return _TAKE_ALIKE if alike else _TAKE, [
        [take.tenant_id for take in takes],
        [take.limit.id for take in takes],
        [take.period for take in takes],
        [take.limit.max_amount_minor for take in takes],
        [take.limit.max_count for take in takes],
        *([] if places is None else [places]),
        [subject for take in sent for subject in take.sums],
        spare([each.held_minor for each in sums]),
        spare([each.used_minor for each in sums]),
        spare([each.held_count for each in sums]),
        spare([each.used_count for each in sums]),
    ]


def _columns(keys: Sequence[UsageKey]) -> tuple[list[UUID], list[str], list[object]]:
    return [key.limit_id for key in keys], [key.subject for key in keys], [key.period for key in keys]


def _limit(row: asyncpg.Record) -> StoredLimit:
    return StoredLimit(
        id=row["limit_id"],
        version=row["version"],
        name=row["name"],
        enabled=row["enabled"],
        request=LimitRequest.model_validate_json(row["body"]),
        timezone=row["timezone"],
        created_at=row["created_at"],
        created_by=row["created_by"],
    )
