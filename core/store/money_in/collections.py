"""Money in, in PostgreSQL: what payers' references stand for, payments as providers tell them, tolerances."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

import orjson

from core.domain.collections import Payment, Tolerance
from core.domain.jobs import JobRow
from core.domain.reconciliation import Break
from core.services.money_in.collection_port import Collection, NewPayment, Reference, TransactionName
from core.store.money_in.suspense import STANDING
from core.store.unit_of_work import UnitOfWork, Write
from schemas.collections import ProviderPayment
from schemas.suspense import SuspenseState

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
SELECT DISTINCT c.job_id, p.consumed_by FROM fleet.provider_payment_names n
JOIN unnest($2::text[], $3::text[], $4::text[], $5::date[]) AS t(provider_account, environment, name, recycled_on)
    ON n.provider_account = t.provider_account AND n.environment = t.environment AND n.name = t.name
        AND n.recycled_on = t.recycled_on
JOIN fleet.provider_payments p ON p.id = n.payment_id
LEFT JOIN fleet.collections c ON c.intent_id = p.intent_id
WHERE n.rail = $1 AND (c.job_id IS NOT NULL OR p.consumed_by IS NOT NULL)
"""

_TAKERS: Final = """
SELECT DISTINCT p.consumed_by FROM unnest($2::uuid[], $3::text[]) AS t(job_id, name)
JOIN fleet.jobs j ON j.id = t.job_id AND j.id BETWEEN $4 AND $5
JOIN fleet.provider_payment_names n ON n.rail = $1 AND n.provider_account = j.provider_account
    AND n.environment = j.environment AND n.name = t.name
JOIN fleet.provider_payments p ON p.id = n.payment_id
WHERE p.consumed_by IS NOT NULL
"""

_NAMED: Final = """
SELECT n.kind, n.provider_account, n.environment, n.name, n.recycled_on,
    p.id, p.tenant_id, p.state, p.amount_minor, p.currency, p.intent_id, p.consumed_by, p.reason, p.returned_minor,
    p.returned_by,
    (SELECT array_agg(o.name) FROM fleet.provider_payment_names o WHERE o.payment_id = p.id) AS names
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
    tenant_id = m.tenant_id, accounted_at = CASE WHEN m.state <> 'NOTED' THEN now() END
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[]) AS m(id, state, reason, intent_id, tenant_id)
WHERE p.id = ANY ($1::uuid[]) AND p.id = m.id
"""

_SOURCE: Final = """
INSERT INTO fleet.provider_payment_sources (payment_id, tenant_id, source, evidence_id, amount_minor, currency, differs,
    status, confirmed)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::bigint[], $6::text[], $7::bool[], $8::text[],
    $9::bool[])
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
# Over the small index of what waits for an answer: references have none of their own. These jobs are locked behind
# intents: whoever has one of them is at work on it, and is not waited for.
_HURRY_NAMED: Final = """
UPDATE fleet.jobs SET next_check_at = now() WHERE id IN (
    SELECT id FROM fleet.jobs
    WHERE reference = ANY ($2::text[]) AND rail = $1 AND closed_at IS NULL AND next_check_at > now()
    FOR NO KEY UPDATE SKIP LOCKED)
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


# Told again as they were told first. A fact that the ledger refused waits longer each time.
_TO_TELL: Final = f"""
WITH noted AS (
    SELECT p.id FROM fleet.provider_payments p JOIN fleet.intents i ON i.id = p.intent_id
    WHERE p.state = 'NOTED' AND p.kind = 'PAYMENT' AND p.reason = ''
        AND i.state IN ('SETTLED', 'FAILED', 'CANCELLED', 'EXPIRED')
        AND EXISTS (SELECT FROM fleet.provider_payment_sources s WHERE s.payment_id = p.id
            AND s.source IN ('REGISTER', 'STATEMENT') AND s.status = 'SUCCEEDED' AND NOT s.differs)
    UNION ALL
    SELECT r.id FROM fleet.provider_payments r JOIN fleet.provider_payments p ON p.returned_by = r.id
    LEFT JOIN fleet.intents c ON c.id = p.consumed_by
    WHERE r.state = 'NOTED' AND r.reason = 'refund_running' AND {STANDING} NOT IN ('RETURNING', 'IN_REVIEW')
    UNION ALL
    SELECT p.id FROM fleet.provider_payments p WHERE p.state = 'NOTED' AND p.reason = 'ledger_refused'
        AND coalesce(p.retry_at, p.seen_at + interval '10 seconds') <= now()
    LIMIT $1
), told AS (
    UPDATE fleet.provider_payments p SET retry_at = now() + least(now() - p.seen_at, interval '1 hour')
    WHERE p.id IN (SELECT id FROM noted) AND p.reason = 'ledger_refused'
)
SELECT p.rail, p.provider_account, p.environment, p.transaction_id, p.kind, p.amount_minor, p.currency, p.reference,
    p.occurred_at, s.source, s.status, s.confirmed, s.evidence_id, n.names, n.recycled_on
FROM fleet.provider_payments p CROSS JOIN LATERAL (
    SELECT * FROM fleet.provider_payment_sources s WHERE s.payment_id = p.id AND NOT s.differs
    ORDER BY (s.status = 'SUCCEEDED') DESC, (s.source <> 'CALLBACK' OR s.confirmed) DESC LIMIT 1) s
CROSS JOIN LATERAL (
    SELECT array_agg(o.name) AS names, max(o.recycled_on) AS recycled_on
    FROM fleet.provider_payment_names o WHERE o.payment_id = p.id) n
WHERE p.id IN (SELECT id FROM noted) ORDER BY p.seen_at
"""  # noqa: S608 - a constant

_STANDING_OF: Final = f"""
SELECT p.id, {STANDING} AS state FROM fleet.provider_payments p LEFT JOIN fleet.intents c ON c.id = p.consumed_by
WHERE p.id = ANY ($1::uuid[])
"""  # noqa: S608 - a constant

_RETURNS: Final = """
UPDATE fleet.provider_payments p SET returned_minor = r.returned_minor, returned_by = r.returned_by
FROM unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS r(id, returned_minor, returned_by) WHERE p.id = r.id
"""

_BREAKS: Final = """
INSERT INTO fleet.breaks (id, tenant_id, kind, subject_id, amount_minor, currency, detail)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::bigint[], $6::text[], $7::text[])
ON CONFLICT (id) DO UPDATE SET last_seen_at = now(),
    state = CASE breaks.state WHEN 'GONE' THEN 'OPEN' ELSE breaks.state END,
    ended_at = CASE breaks.state WHEN 'GONE' THEN NULL ELSE breaks.ended_at END
"""
_END_BREAKS: Final = """
UPDATE fleet.breaks SET state = 'GONE', ended_at = now() WHERE id = ANY ($1) AND state IN ('OPEN', 'PROPOSED')
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

    async def of_transactions(
        self, uow: UnitOfWork, rail: str, names: Sequence[TransactionName]
    ) -> tuple[set[UUID], set[UUID]]:
        """Return the collect jobs whose payments these transactions are, and the intents that took them."""
        rows = await uow.connection.fetch(_OF_TRANSACTIONS, rail, *_columns(names))
        jobs, takers = ({row[name] for row in rows} - {None} for name in ("job_id", "consumed_by"))
        return jobs, takers

    async def takers_of(self, uow: UnitOfWork, rail: str, told: Sequence[tuple[UUID, str]]) -> set[UUID]:
        """Return the intents that took transactions out of suspense; the job that each was told of by, and its name.

        `told` is not empty.
        """
        ids = [job_id for job_id, _ in told]
        rows = await uow.connection.fetch(_TAKERS, rail, ids, [name for _, name in told], min(ids), max(ids))
        return {row["consumed_by"] for row in rows}

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
            values = {name: row[name] for name in Payment.__dataclass_fields__} | {"names": frozenset(row["names"])}
            named[row["kind"], key] = found.setdefault(row["id"], Payment(**values))
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
            [each.payment.reason for each in payments],
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
                [fact.status for _, fact, _ in told],
                [fact.confirmed for _, fact, _ in told],
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

    async def standing_of(self, uow: UnitOfWork, payments: Sequence[UUID]) -> dict[UUID, SuspenseState]:
        """Return where items of the work list stand whose rows are locked."""
        rows = await uow.connection.fetch(_STANDING_OF, payments)
        return {row["id"]: SuspenseState(row["state"]) for row in rows}

    async def reviewed(self, uow: UnitOfWork, intent_id: UUID) -> Payment | None:
        """Return the payment that a collection in review has taken, locked; None where nothing waits for it."""
        row = await uow.connection.fetchrow(
            "SELECT id, tenant_id, state, amount_minor, currency, intent_id, consumed_by, reason"
            " FROM fleet.provider_payments WHERE consumed_by = $1 AND intent_id = $1 AND state = 'SUSPENDED'"
            " FOR NO KEY UPDATE",
            intent_id,
        )
        return None if row is None else Payment(**dict(row))

    async def note_returns(self, uow: UnitOfWork, payments: Sequence[Payment]) -> None:
        """Keep what was taken back of payments, and by which return."""
        if payments:
            await uow.connection.execute(
                _RETURNS,
                [each.id for each in payments],
                [each.returned_minor for each in payments],
                [each.returned_by for each in payments],
            )

    async def record_breaks(self, uow: UnitOfWork, breaks: Sequence[Break]) -> None:
        """Keep breaks for a person to put right; the same again is one break."""
        found = list({each.id: each for each in breaks}.values())
        if found:
            await uow.connection.execute(
                _BREAKS,
                [each.id for each in found],
                [each.tenant_id for each in found],
                [each.kind for each in found],
                [each.subject_id for each in found],
                [each.amount_minor for each in found],
                [each.currency for each in found],
                [each.detail for each in found],
            )

    async def end_breaks(self, uow: UnitOfWork, ids: Sequence[UUID]) -> None:
        """End those of these breaks that are open: what was wrong is booked."""
        if ids:
            await uow.connection.execute(_END_BREAKS, ids)

    async def notes_to_tell(self, uow: UnitOfWork, limit: int) -> list[tuple[str, ProviderPayment]]:
        """Return rail and fact of what waited, and can be judged anew: nobody may tell of it again.

        What a register or statement told of for a collection that has ended without it; a return whose payment was on
        its way back; what the ledger refused a while ago.
        """
        return [(row["rail"], _fact(row)) for row in await uow.connection.fetch(_TO_TELL, limit)]


def _fact(row: Any) -> ProviderPayment:
    named = {name: row[name] for name in ProviderPayment.model_fields if name in row}
    recycled_on = None if row["recycled_on"] in (None, _NEVER_RECYCLED) else row["recycled_on"]
    others = tuple(sorted(set(row["names"] or ()) - {row["transaction_id"]}))[:5]
    return ProviderPayment.model_validate(named | {"recycled_on": recycled_on, "also_known_as": others})


def _columns(names: Sequence[TransactionName]) -> tuple[list[str], list[str], list[str], list[date]]:
    return (
        [account for account, _, _, _ in names],
        [environment for _, environment, _, _ in names],
        [name for _, _, name, _ in names],
        [recycled_on or _NEVER_RECYCLED for _, _, _, recycled_on in names],
    )
