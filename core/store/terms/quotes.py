"""Quotes in PostgreSQL, and the terms and rate that they are made of."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from core.domain.exchange import Quote
from core.domain.rates import Pair, Rate
from core.services.terms.quotes import Offer
from core.store.database import UnitOfWork
from core.store.unit_of_work import Write
from schemas.exchange import QuoteSide

# The newest terms of a pair that is kept in either direction, and the rate in force, at one moment.
_OFFER: Final = """
SELECT now() AS now, p.base, p.counter, p.enabled, p.spread_basis_points, p.rate_max_age_s, p.quote_ttl_s,
    r.version, r.units, r.scale, r.observed_at
FROM (
    SELECT * FROM fleet.exchange_pairs
    WHERE tenant_id = $1 AND (base, counter) IN (($2, $3), ($3, $2)) ORDER BY version DESC LIMIT 1) p
LEFT JOIN LATERAL (
    SELECT * FROM fleet.exchange_rates r WHERE r.tenant_id = $1 AND r.base = p.base AND r.counter = p.counter
    ORDER BY r.observed_at DESC, r.version DESC LIMIT 1) r ON true
"""
_COLUMNS: Final = (
    "id, tenant_id, service_key_id, wallet_id, counterparty_wallet_id, from_currency, to_currency, from_minor,"
    " to_minor, spread_minor, side, base, counter, rate_units, rate_scale, rate_version, spread_basis_points,"
    " created_at, expires_at, intent_id"
)
_INSERT: Final = f"""
INSERT INTO fleet.quotes ({_COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
"""  # noqa: S608 - a constant
_SELECT: Final = f"SELECT {_COLUMNS}, now() AS now FROM fleet.quotes WHERE id = ANY ($1::uuid[]) ORDER BY id"  # noqa: S608
_USE: Final = Write(
    """
used_quotes AS (
    UPDATE fleet.quotes q SET intent_id = u.intent_id
    FROM unnest($1::uuid[], $2::uuid[]) AS u(id, intent_id)
    WHERE q.id = ANY ($1::uuid[]) AND q.id = u.id AND q.intent_id IS NULL
    RETURNING q.id
)
""",
    frozenset({"quotes"}),
    "SELECT count(*) FROM used_quotes",
)


class QuoteStore:
    """The quotes of the unit of work's tenant."""

    async def offer(self, uow: UnitOfWork, tenant_id: UUID, pair: Pair) -> Offer | None:
        """Return terms and rate of two currencies in either direction; None where no terms were ever set."""
        row = await uow.connection.fetchrow(_OFFER, tenant_id, *pair)
        if row is None:
            return None
        return Offer(
            now=row["now"],
            pair=Pair(row["base"], row["counter"]),
            enabled=row["enabled"],
            spread_basis_points=row["spread_basis_points"],
            rate_max_age_s=row["rate_max_age_s"],
            quote_ttl_s=row["quote_ttl_s"],
            rate=None if row["units"] is None else Rate(row["units"], row["scale"]),
            rate_version=row["version"] or 0,
            observed_at=row["observed_at"],
        )

    async def insert_quote(self, uow: UnitOfWork, quote: Quote) -> None:
        """Keep a new quote."""
        await uow.connection.execute(
            _INSERT,
            quote.id,
            quote.tenant_id,
            quote.service_key_id,
            quote.wallet_id,
            quote.counterparty_wallet_id,
            quote.from_currency,
            quote.to_currency,
            quote.from_minor,
            quote.to_minor,
            quote.spread_minor,
            quote.side,
            *quote.pair,
            quote.rate.units,
            quote.rate.scale,
            quote.rate_version,
            quote.spread_basis_points,
            quote.created_at,
            quote.expires_at,
            quote.intent_id,
        )

    async def find_quotes(
        self, uow: UnitOfWork, ids: Sequence[UUID], *, lock: bool = False
    ) -> tuple[dict[UUID, Quote], datetime | None]:
        """Return those that exist and may be seen, and the moment; with `lock`, locked in id order until the end.

        The moment is None where none was found.
        """
        rows = await uow.connection.fetch(_SELECT + (" FOR NO KEY UPDATE" if lock else ""), ids)
        return {row["id"]: _quote(row) for row in rows}, rows[0]["now"] if rows else None

    async def use_quotes(self, uow: UnitOfWork, used: Mapping[UUID, UUID]) -> None:
        """Note by which intent each locked quote is used. Raises WriteMissedError where one was used before."""
        await uow.later(_USE, list(used), list(used.values()), expected=len(used))


def _quote(row: asyncpg.Record) -> Quote:
    return Quote(
        id=row["id"],
        tenant_id=row["tenant_id"],
        service_key_id=row["service_key_id"],
        wallet_id=row["wallet_id"],
        counterparty_wallet_id=row["counterparty_wallet_id"],
        from_currency=row["from_currency"],
        to_currency=row["to_currency"],
        from_minor=row["from_minor"],
        to_minor=row["to_minor"],
        spread_minor=row["spread_minor"],
        side=QuoteSide(row["side"]),
        pair=Pair(row["base"], row["counter"]),
        rate=Rate(row["rate_units"], row["rate_scale"]),
        rate_version=row["rate_version"],
        spread_basis_points=row["spread_basis_points"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        intent_id=row["intent_id"],
    )
