"""Money in, in PostgreSQL: what payers' references stand for, payments as providers tell them, tolerances."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

import orjson

from core.domain.collections import Payment, Tolerance
from core.domain.jobs import JobRow
from core.services.collections import Collection, NewPayment, Reference, TransactionName
from core.store.unit_of_work import UnitOfWork, Write
from schemas.collections import ProviderPayment

_NEVER_RECYCLED: Final = date.min
"""The driver writes it as -infinity."""

_OPEN: Final = Write(
    """
made_collections AS (
    INSERT INTO fleet.collections (intent_id, tenant_id, job_id, rail, provider_account, environment, reference)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[])
    ON CONFLICT (intent_id) DO NOTHING
    RETURNING intent_id
)
""",
    frozenset({"collections"}),
    "SELECT count(*) FROM made_collections",
)

_BY_REFERENCE: Final = """
SELECT c.intent_id, c.tenant_id, c.job_id, c.provider_account, c.environment, c.reference
FROM fleet.collections c
JOIN unnest($2::text[], $3::text[], $4::text[]) AS r(provider_account, environment, reference)
    ON c.provider_account = r.provider_account AND c.environment = r.environment AND c.reference = r.reference
WHERE c.rail = $1
"""

_OF_TRANSACTIONS: Final = """
SELECT DISTINCT c.job_id FROM fleet.provider_payment_names n
JOIN unnest($2::text[], $3::text[], $4::text[], $5::date[]) AS t(provider_account, environment, name, recycled_on)
    ON n.provider_account = t.provider_account AND n.environment = t.environment AND n.name = t.name
        AND n.recycled_on = t.recycled_on
JOIN fleet.provider_payments p ON p.id = n.payment_id
JOIN fleet.collections c ON c.intent_id = p.intent_id
WHERE n.rail = $1
"""

_NAMED: Final = """
SELECT n.kind, n.provider_account, n.environment, n.name, n.recycled_on,
    p.id, p.tenant_id, p.state, p.amount_minor, p.currency, p.intent_id, p.consumed_by
FROM fleet.provider_payment_names n
JOIN unnest($2::text[], $3::text[], $4::text[], $5::date[]) AS t(provider_account, environment, name, recycled_on)
    ON n.provider_account = t.provider_account AND n.environment = t.environment AND n.name = t.name
        AND n.recycled_on = t.recycled_on
JOIN fleet.provider_payments p ON p.id = n.payment_id
WHERE n.rail = $1 FOR NO KEY UPDATE OF p
"""

_INSERT: Final = """
INSERT INTO fleet.provider_payments (id, tenant_id, rail, provider, provider_account, environment, kind, transaction_id,
    amount_minor, currency, reference, occurred_at, state, reason, intent_id, accounted_at)
SELECT p.*, CASE WHEN p.state <> 'NOTED' THEN now() END
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::bigint[], $10::text[], $11::text[], $12::timestamptz[], $13::text[], $14::text[], $15::uuid[])
    AS p(id, tenant_id, rail, provider, provider_account, environment, kind, transaction_id, amount_minor, currency,
        reference, occurred_at, state, reason, intent_id)
"""

_NAME: Final = """
INSERT INTO fleet.provider_payment_names (rail, provider_account, environment, kind, name, recycled_on, tenant_id,
    payment_id)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::date[], $7::uuid[], $8::uuid[])
ON CONFLICT DO NOTHING
"""

_MOVE: Final = """
UPDATE fleet.provider_payments p SET state = m.state, reason = m.reason, intent_id = coalesce(m.intent_id, p.intent_id),
    tenant_id = m.tenant_id, accounted_at = now()
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[]) AS m(id, state, reason, intent_id, tenant_id)
WHERE p.id = ANY ($1::uuid[]) AND p.id = m.id
"""

_SOURCE: Final = """
INSERT INTO fleet.provider_payment_sources (payment_id, tenant_id, source, evidence_id, amount_minor, currency, differs)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::bigint[], $6::text[], $7::bool[])
ON CONFLICT DO NOTHING
"""

_EVENT: Final = """
INSERT INTO fleet.provider_events (rail, event_id, body_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING true
"""

_TENANTS: Final = """
SELECT array_agg(DISTINCT tenant_id) FROM fleet.routes
WHERE rail = $1 AND provider_account = $2 AND environment = $3 AND enabled
"""

_HURRY: Final = """
UPDATE fleet.jobs SET next_check_at = now()
WHERE id = ANY ($2::uuid[]) AND rail = $1 AND closed_at IS NULL AND next_check_at > now()
"""
# Over the small index of what waits for an answer: references have none of their own.
_HURRY_NAMED: Final = """
UPDATE fleet.jobs SET next_check_at = now()
WHERE reference = ANY ($2::text[]) AND rail = $1 AND closed_at IS NULL AND next_check_at > now()
"""

_SHOW: Final = """
WITH shown AS (
    UPDATE fleet.intents i SET next_action = n.next_action, version = i.version + 1, updated_at = now()
    FROM unnest($1::uuid[], $2::jsonb[]) AS n(id, next_action)
    WHERE i.id = ANY ($1::uuid[]) AND i.id = n.id AND i.id BETWEEN $3 AND $4
    RETURNING i.id, i.version, i.tenant_id, i.state, i.traceparent
)
INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor, traceparent)
SELECT id, version, tenant_id, 'awaiting_payment', state, $5, traceparent FROM shown
"""

_BURY: Final = """
WITH marked AS (
    UPDATE fleet.jobs SET tombstoned = true, next_check_at = now() WHERE id = $1 AND closed_at IS NULL RETURNING id
), told AS (
    UPDATE fleet.intents SET version = version + 1, updated_at = now()
    WHERE id = $2 AND EXISTS (SELECT FROM marked) RETURNING id, version, tenant_id, state, traceparent
)
INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor, traceparent)
SELECT id, version, tenant_id, 'cancel_requested', state, $3, traceparent FROM told
"""

_CONFIRMED: Final = """
UPDATE fleet.intents i SET confirmed_minor = c.amount_minor FROM unnest($1::uuid[], $2::bigint[]) AS c(id, amount_minor)
WHERE i.id = ANY ($1::uuid[]) AND i.id = c.id AND i.id BETWEEN $3 AND $4
"""


_LAPSED: Final = """
SELECT p.*, (SELECT nullif(n.recycled_on, '-infinity') FROM fleet.provider_payment_names n
    WHERE n.payment_id = p.id AND n.name = p.transaction_id LIMIT 1) AS recycled_on
FROM fleet.provider_payments p JOIN fleet.intents i ON i.id = p.intent_id
WHERE p.state = 'NOTED' AND p.kind = 'PAYMENT' AND i.state IN ('SETTLED', 'FAILED', 'CANCELLED', 'EXPIRED')
    AND EXISTS (SELECT FROM fleet.provider_payment_sources s
        WHERE s.payment_id = p.id AND s.source IN ('REGISTER', 'STATEMENT') AND NOT s.differs)
ORDER BY p.seen_at LIMIT $1
"""


class CollectionStore:
    """The collections and payments that the unit of work's role may see."""

    async def open(self, uow: UnitOfWork, jobs: Sequence[JobRow]) -> None:
        """Note which reference each collection is known by, at the latest with the commit."""
        if jobs:
            await uow.later(
                _OPEN,
                [job.intent_id for job in jobs],
                [job.tenant_id for job in jobs],
                [job.id for job in jobs],
                [job.rail for job in jobs],
                [job.provider_account for job in jobs],
                [job.environment for job in jobs],
                [job.reference for job in jobs],
            )

    async def by_reference(
        self, uow: UnitOfWork, rail: str, references: Sequence[Reference]
    ) -> dict[Reference, Collection]:
        """Return the collections that payers' references name."""
        if not references:
            return {}
        rows = await uow.connection.fetch(_BY_REFERENCE, rail, *zip(*references, strict=True))
        return {
            (row["provider_account"], row["environment"], row["reference"]): Collection(
                row["intent_id"], row["tenant_id"], row["job_id"]
            )
            for row in rows
        }

    async def jobs_of_transactions(self, uow: UnitOfWork, rail: str, names: Sequence[TransactionName]) -> set[UUID]:
        """Return the collect jobs whose payments these transactions are."""
        return {row["job_id"] for row in await uow.connection.fetch(_OF_TRANSACTIONS, rail, *_columns(names))}

    async def lock(self, uow: UnitOfWork, rail: str, accounts: Sequence[str]) -> None:
        """Take payments of these provider accounts in turn, until the end: a name is one payment's."""
        for account in sorted(set(accounts)):
            await uow.connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('fleet.payments:' || $1 || ':' || $2, 0))", rail, account
            )

    async def named(
        self, uow: UnitOfWork, rail: str, names: Sequence[TransactionName]
    ) -> dict[tuple[str, TransactionName], Payment]:
        """Return the payments that are known by these names, by kind and name."""
        found: dict[UUID, Payment] = {}
        named: dict[tuple[str, TransactionName], Payment] = {}
        for row in await uow.connection.fetch(_NAMED, rail, *_columns(names)):
            recycled_on = None if row["recycled_on"] == _NEVER_RECYCLED else row["recycled_on"]
            key = (row["provider_account"], row["environment"], row["name"], recycled_on)
            values = [row[name] for name in Payment.__dataclass_fields__]
            named[row["kind"], key] = found.setdefault(row["id"], Payment(*values))
        return named

    async def insert(self, uow: UnitOfWork, rail: str, payments: Sequence[NewPayment]) -> None:
        """Keep payments not known before."""
        if not payments:
            return
        await uow.connection.execute(
            _INSERT,
            [each.payment.id for each in payments],
            [each.payment.tenant_id for each in payments],
            [rail] * len(payments),
            [each.provider for each in payments],
            [each.fact.provider_account for each in payments],
            [each.fact.environment for each in payments],
            [each.fact.kind for each in payments],
            [each.fact.transaction_id for each in payments],
            [each.payment.amount_minor for each in payments],
            [each.payment.currency for each in payments],
            [each.fact.reference for each in payments],
            [each.fact.occurred_at for each in payments],
            [each.payment.state for each in payments],
            [each.reason for each in payments],
            [each.payment.intent_id for each in payments],
        )

    async def name(self, uow: UnitOfWork, rail: str, names: Mapping[tuple[str, TransactionName], Payment]) -> None:
        """Keep by which names payments are known; a repeat changes nothing."""
        if not names:
            return
        keys, payments = list(names), list(names.values())
        await uow.connection.execute(
            _NAME,
            [rail] * len(keys),
            [account for _, (account, _, _, _) in keys],
            [environment for _, (_, environment, _, _) in keys],
            [kind for kind, _ in keys],
            [name for _, (_, _, name, _) in keys],
            [recycled_on or _NEVER_RECYCLED for _, (_, _, _, recycled_on) in keys],
            [payment.tenant_id for payment in payments],
            [payment.id for payment in payments],
        )

    async def move(self, uow: UnitOfWork, moved: Sequence[tuple[Payment, str]]) -> None:
        """Write what became of payments that had been noted, with the reason."""
        if moved:
            await uow.connection.execute(
                _MOVE,
                [payment.id for payment, _ in moved],
                [payment.state for payment, _ in moved],
                [reason for _, reason in moved],
                [payment.intent_id for payment, _ in moved],
                [payment.tenant_id for payment, _ in moved],
            )

    async def add_sources(self, uow: UnitOfWork, told: Sequence[tuple[Payment, ProviderPayment, bool]]) -> None:
        """Keep who told of payments, and whether the money differed; the same again changes nothing."""
        if told:
            await uow.connection.execute(
                _SOURCE,
                [payment.id for payment, _, _ in told],
                [payment.tenant_id for payment, _, _ in told],
                [fact.source for _, fact, _ in told],
                [fact.evidence_id for _, fact, _ in told],
                [fact.amount_minor for _, fact, _ in told],
                [fact.currency for _, fact, _ in told],
                [differs for _, _, differs in told],
            )

    async def note_event(self, uow: UnitOfWork, rail: str, event_id: str, body_hash: bytes) -> bytes | None:
        """Keep the id of a callback; return the hash that it came with before, None where it is new."""
        if await uow.connection.fetchval(_EVENT, rail, event_id, body_hash):
            return None
        first: bytes = await uow.connection.fetchval(
            "SELECT body_hash FROM fleet.provider_events WHERE rail = $1 AND event_id = $2", rail, event_id
        )
        return first

    async def tenant_of(self, uow: UnitOfWork, rail: str, account: str, environment: str) -> UUID | None:
        """Return the only tenant that has a route to a provider account; None where there are several, or none."""
        tenants = await uow.connection.fetchval(_TENANTS, rail, account, environment) or []
        return tenants[0] if len(tenants) == 1 else None

    async def hurry(self, uow: UnitOfWork, rail: str, jobs: Sequence[UUID], references: Sequence[str]) -> None:
        """Let the resolver ask at once about jobs that wait for an answer."""
        if jobs:
            await uow.connection.execute(_HURRY, rail, jobs)
        if references:
            await uow.connection.execute(_HURRY_NAMED, rail, references)

    async def show(self, uow: UnitOfWork, actions: Mapping[UUID, Mapping[str, Any]]) -> None:
        """Keep what payers are shown, with an event each."""
        if actions:
            ids = sorted(actions, key=lambda each: each.int)
            bodies = [orjson.dumps(actions[each]).decode() for each in ids]
            await uow.connection.execute(_SHOW, ids, bodies, ids[0], ids[-1], uow.context.actor)

    async def ask_to_bury(self, uow: UnitOfWork, job_id: UUID, intent_id: UUID) -> None:
        """Mark a locked collect job for a cancel at once, with an event of its intent."""
        await uow.connection.execute(_BURY, job_id, intent_id, uow.context.actor)

    async def consume(self, uow: UnitOfWork, taken: Mapping[UUID, UUID]) -> None:
        """Note which intents took payments out of suspense."""
        if taken:
            await uow.connection.execute(
                "UPDATE fleet.provider_payments p SET consumed_by = c.intent_id, consumed_at = now()"
                " FROM unnest($1::uuid[], $2::uuid[]) AS c(id, intent_id) WHERE p.id = c.id",
                list(taken),
                list(taken.values()),
            )

    async def confirm(self, uow: UnitOfWork, received: Mapping[UUID, int]) -> None:
        """Keep what was received where it differs from what was asked."""
        if received:
            ids = sorted(received, key=lambda each: each.int)
            await uow.connection.execute(_CONFIRMED, ids, [received[each] for each in ids], ids[0], ids[-1])

    async def tolerances_of(self, uow: UnitOfWork, tenants: Sequence[UUID]) -> dict[tuple[UUID, str, str], Tolerance]:
        """Return the tolerances of tenants, by tenant, operation and currency."""
        rows = await uow.connection.fetch(
            "SELECT * FROM fleet.collection_tolerances WHERE tenant_id = ANY ($1::uuid[])", tenants
        )
        return {
            (row["tenant_id"], row["operation"], row["currency"]): Tolerance(row["below_minor"], row["above_minor"])
            for row in rows
        }

    async def lapsed_notes(self, uow: UnitOfWork, limit: int) -> list[dict[str, Any]]:
        """Return payments that a register or statement told of, for a collection that has ended without them."""
        return [dict(row) for row in await uow.connection.fetch(_LAPSED, limit)]


def _columns(names: Sequence[TransactionName]) -> tuple[list[str], list[str], list[str], list[date]]:
    return (
        [account for account, _, _, _ in names],
        [environment for _, environment, _, _ in names],
        [name for _, _, name, _ in names],
        [recycled_on or _NEVER_RECYCLED for _, _, _, recycled_on in names],
    )
