"""Pairs and rates of exchange in PostgreSQL: versions that are only added."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from core.domain.rates import Pair, Rate
from core.services.terms.rates import Observed, StoredPair, StoredRate
from core.store.database import UnitOfWork

# Serializes the writers of a tenant: the second waits here, and reads its predecessor's version afterwards.
_LOCK: Final = """
INSERT INTO fleet.exchange_books AS b (tenant_id, revision) VALUES ($1, 1)
ON CONFLICT (tenant_id) DO UPDATE SET revision = b.revision + 1
RETURNING clock_timestamp()
"""
_PAIRS: Final = """
SELECT DISTINCT ON (base, counter) base, counter, version, enabled, spread_basis_points, rate_max_age_s, quote_ttl_s,
    created_at, created_by
FROM fleet.exchange_pairs WHERE tenant_id = $1 ORDER BY base, counter, version DESC
"""
_INSERT_PAIR: Final = """
INSERT INTO fleet.exchange_pairs (tenant_id, base, counter, version, enabled, spread_basis_points, rate_max_age_s,
    quote_ttl_s, created_at, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_RATE: Final = "r.base, r.counter, r.version, r.units, r.scale, r.source, r.observed_at, r.recorded_at, r.recorded_by"
_KNOWN: Final = """
SELECT k.place FROM unnest($2::text[], $3::text[], $4::bigint[], $5::smallint[], $6::text[], $7::timestamptz[])
    WITH ORDINALITY AS k(base, counter, units, scale, source, observed_at, place)
WHERE EXISTS (SELECT FROM fleet.exchange_rates r WHERE r.tenant_id = $1 AND r.base = k.base AND r.counter = k.counter
    AND r.observed_at = k.observed_at AND r.units = k.units AND r.scale = k.scale AND r.source = k.source)
"""
_NEWEST: Final = """
SELECT k.base, k.counter, (SELECT max(r.version) FROM fleet.exchange_rates r
    WHERE r.tenant_id = $1 AND r.base = k.base AND r.counter = k.counter) AS version
FROM unnest($2::text[], $3::text[]) AS k(base, counter)
"""
_INSERT_RATES: Final = """
INSERT INTO fleet.exchange_rates (tenant_id, base, counter, version, units, scale, source, observed_at, recorded_at,
    recorded_by)
SELECT $1, k.* FROM unnest($2::text[], $3::text[], $4::int[], $5::bigint[], $6::smallint[], $7::text[],
    $8::timestamptz[], $9::timestamptz[], $10::text[])
    AS k(base, counter, version, units, scale, source, observed_at, recorded_at, recorded_by)
"""
_IN_FORCE: Final = f"""
SELECT {_RATE} FROM (SELECT DISTINCT base, counter FROM fleet.exchange_pairs WHERE tenant_id = $1) p
CROSS JOIN LATERAL (
    SELECT * FROM fleet.exchange_rates r WHERE r.tenant_id = $1 AND r.base = p.base AND r.counter = p.counter
    ORDER BY r.observed_at DESC, r.version DESC LIMIT 1) r
ORDER BY r.base, r.counter
"""  # noqa: S608 - a constant
_PAGE: Final = f"""
SELECT {_RATE} FROM fleet.exchange_rates r
WHERE r.tenant_id = $1 AND r.base = $2 AND r.counter = $3 AND ($4::int IS NULL OR r.version < $4)
ORDER BY r.version DESC LIMIT $5
"""  # noqa: S608 - a constant


class RateStore:
    """The pairs and rates of tenants."""

    async def lock_book(self, uow: UnitOfWork, tenant_id: UUID) -> datetime:
        """Let one writer in at a time; return the time after the wait."""
        now: datetime = await uow.connection.fetchval(_LOCK, tenant_id)
        return now

    async def latest_pairs(self, uow: UnitOfWork, tenant_id: UUID) -> Sequence[StoredPair]:
        """Return the newest version of every pair's terms, by its currencies."""
        return [_pair(row) for row in await uow.connection.fetch(_PAIRS, tenant_id)]

    async def insert_pair(self, uow: UnitOfWork, tenant_id: UUID, pair: StoredPair) -> None:
        """Add a version of a pair's terms."""
        await uow.connection.execute(
            _INSERT_PAIR,
            tenant_id,
            *pair.pair,
            pair.version,
            pair.enabled,
            pair.spread_basis_points,
            pair.rate_max_age_s,
            pair.quote_ttl_s,
            pair.created_at,
            pair.created_by,
        )

    async def known_rates(self, uow: UnitOfWork, tenant_id: UUID, told: Sequence[Observed]) -> set[Observed]:
        """Return those that are recorded already."""
        columns = (
            [each.pair.base for each in told],
            [each.pair.counter for each in told],
            [each.rate.units for each in told],
            [each.rate.scale for each in told],
            [each.source for each in told],
            [each.observed_at for each in told],
        )
        return {told[row["place"] - 1] for row in await uow.connection.fetch(_KNOWN, tenant_id, *columns)}

    async def newest_versions(self, uow: UnitOfWork, tenant_id: UUID, pairs: Sequence[Pair]) -> Mapping[Pair, int]:
        """Return the newest version of each pair's rate, 0 where it has none."""
        bases, counters = [pair.base for pair in pairs], [pair.counter for pair in pairs]
        rows = await uow.connection.fetch(_NEWEST, tenant_id, bases, counters)
        return {Pair(row["base"], row["counter"]): row["version"] or 0 for row in rows}

    async def insert_rates(self, uow: UnitOfWork, tenant_id: UUID, rates: Sequence[StoredRate]) -> None:
        """Add versions of rates."""
        await uow.connection.execute(
            _INSERT_RATES,
            tenant_id,
            [each.pair.base for each in rates],
            [each.pair.counter for each in rates],
            [each.version for each in rates],
            [each.rate.units for each in rates],
            [each.rate.scale for each in rates],
            [each.source for each in rates],
            [each.observed_at for each in rates],
            [each.recorded_at for each in rates],
            [each.recorded_by for each in rates],
        )

    async def rates_in_force(self, uow: UnitOfWork, tenant_id: UUID) -> Sequence[StoredRate]:
        """Return the rate of every pair that was observed last, of equals the one recorded last."""
        return [_rate(row) for row in await uow.connection.fetch(_IN_FORCE, tenant_id)]

    async def page_of_rates(
        self, uow: UnitOfWork, tenant_id: UUID, pair: Pair, before: int | None, limit: int
    ) -> Sequence[StoredRate]:
        """Return versions of a pair's rate, newest first, older than `before`."""
        return [_rate(row) for row in await uow.connection.fetch(_PAGE, tenant_id, *pair, before, limit)]


def _pair(row: asyncpg.Record) -> StoredPair:
    base, counter, *terms = row
    return StoredPair(Pair(base, counter), *terms)


def _rate(row: asyncpg.Record) -> StoredRate:
    base, counter, version, units, scale, *told = row
    return StoredRate(Pair(base, counter), version, Rate(units, scale), *told)
