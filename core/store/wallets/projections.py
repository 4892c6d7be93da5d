"""Projections in PostgreSQL: compared with the history in one snapshot, and written under the payments' own locks."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from core.domain.ledger import Account, AccountFlags
from core.services.wallets.projections import Compared, Difference, MissingAccount, Projection
from core.store.payments.intents import IntentStore
from core.store.unit_of_work import UnitOfWork
from schemas.money import currency_of
from schemas.wallets import WalletEventType

# A hold counts as pending until a resolution names it; posts and plain transfers count as posted.
_SUMS: Final = """
SELECT a.id, a.tenant_id, ARRAY[a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted] AS stored,
    ARRAY[d.pending, d.posted, c.pending, c.posted] AS history
FROM fleet.accounts a
CROSS JOIN LATERAL (
    SELECT coalesce(sum(t.amount_minor) FILTER (WHERE t.flags & 2 = 2 AND r.pending_id IS NULL), 0)::bigint AS pending,
        coalesce(sum(t.amount_minor) FILTER (WHERE t.flags & 10 = 0), 0)::bigint AS posted
    FROM fleet.transfers t LEFT JOIN fleet.transfer_resolutions r ON r.pending_id = t.id
    WHERE t.debit_account_id = a.id) d
CROSS JOIN LATERAL (
    SELECT coalesce(sum(t.amount_minor) FILTER (WHERE t.flags & 2 = 2 AND r.pending_id IS NULL), 0)::bigint AS pending,
        coalesce(sum(t.amount_minor) FILTER (WHERE t.flags & 10 = 0), 0)::bigint AS posted
    FROM fleet.transfers t LEFT JOIN fleet.transfer_resolutions r ON r.pending_id = t.id
    WHERE t.credit_account_id = a.id) c
"""
_STATES: Final = """
SELECT i.id, i.tenant_id, ARRAY[i.state, i.version::text] AS stored, ARRAY[e.state, e.seq::text] AS history
FROM fleet.intents i CROSS JOIN LATERAL (
    SELECT state, seq FROM fleet.intent_events WHERE intent_id = i.id ORDER BY seq DESC LIMIT 1) e
"""
# A history tells each balance back from the stored one: before its first movement there is nothing, else that one is
# wrong. Each movement is told by the payment that it belongs to.
_TOLD: Final = """
SELECT a.id, a.tenant_id, ARRAY[(a.credits_posted - a.debits_posted - m.moved)::text, m.known::text] AS stored,
    ARRAY['0', m.movements::text] AS history
FROM fleet.accounts a CROSS JOIN LATERAL (
    SELECT coalesce(sum(t.moved), 0) AS moved, count(*) AS movements, count(i.id) AS known
    FROM (
        SELECT user_data, -amount_minor AS moved FROM fleet.transfers WHERE debit_account_id = a.id AND flags & 10 = 0
        UNION ALL
        SELECT user_data, amount_minor FROM fleet.transfers WHERE credit_account_id = a.id AND flags & 10 = 0
    ) t LEFT JOIN fleet.intents i ON i.id = t.user_data) m
"""
_TABLES: Final = {
    Projection.ACCOUNT_BALANCE: ("fleet.accounts", _SUMS, "a.id"),
    Projection.TX_HISTORY: ("fleet.wallets", _TOLD, "a.id"),
    Projection.INTENTS: ("fleet.intents", _STATES, "i.id"),
}
_MADE_OF: Final = {Projection.TX_HISTORY: Projection.ACCOUNT_BALANCE}
"""What is stored of a projection that is not stored itself."""
_WRITES: Final = {
    Projection.ACCOUNT_BALANCE: """
UPDATE fleet.accounts a SET debits_pending = h.history[1], debits_posted = h.history[2],
    credits_pending = h.history[3], credits_posted = h.history[4]
FROM told h WHERE a.id = h.id AND h.stored <> h.history RETURNING a.id
""",
    Projection.INTENTS: """
UPDATE fleet.intents i SET state = h.history[1], version = h.history[2]::int, updated_at = now()
FROM told h WHERE i.id = h.id AND h.stored <> h.history RETURNING i.id
""",
}
# An account of a wallet is there from the wallet's beginning, any other from its first transfer on. What was frozen or
# closed, and whose liquidity may be overdrawn, events tell.
_MISSING: Final = """
WITH named AS (
    SELECT w.id, w.tenant_id, NULL::integer AS ledger, w.currency FROM fleet.wallets w
    WHERE NOT EXISTS (SELECT FROM fleet.accounts a WHERE a.id = w.id)
    UNION ALL
    SELECT t.debit_account_id, t.tenant_id, t.ledger, NULL FROM fleet.transfers t
    WHERE NOT EXISTS (SELECT FROM fleet.accounts a WHERE a.id = t.debit_account_id)
    UNION ALL
    SELECT t.credit_account_id, t.tenant_id, t.ledger, NULL FROM fleet.transfers t
    WHERE NOT EXISTS (SELECT FROM fleet.accounts a WHERE a.id = t.credit_account_id)
)
SELECT n.id, (array_agg(n.tenant_id))[1] AS tenant_id, max(n.ledger) AS ledger, max(n.currency) AS currency,
    (SELECT array_agg(e.type ORDER BY e.seq) FROM fleet.wallet_events e WHERE e.wallet_id = n.id) AS events,
    coalesce((SELECT l.may_overdraw FROM fleet.liquidity_changes l WHERE l.account_id = n.id
        ORDER BY l.changed_at DESC LIMIT 1), false) AS may_overdraw,
    array(SELECT DISTINCT t.user_data FROM (
        (SELECT user_data FROM fleet.transfers WHERE debit_account_id = n.id AND user_data IS NOT NULL LIMIT 10)
        UNION ALL
        (SELECT user_data FROM fleet.transfers WHERE credit_account_id = n.id AND user_data IS NOT NULL LIMIT 10)
    ) t) AS intents
FROM named n WHERE n.id > $1 GROUP BY n.id ORDER BY n.id LIMIT $2
"""
_PROVIDER_ACCOUNTS: Final = """
SELECT DISTINCT tenant_id, provider || ':' || provider_account || ':' || environment AS name
FROM fleet.provider_payments WHERE tenant_id = ANY ($1::uuid[])
"""
_MAKE: Final = """
INSERT INTO fleet.accounts (id, tenant_id, ledger, code, flags)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::integer[], $5::smallint[])
    AS a(id, tenant_id, ledger, code, flags) ORDER BY a.id
ON CONFLICT DO NOTHING RETURNING id
"""
_FLAG_EVENTS: Final = {
    WalletEventType.FROZEN: lambda flags: flags | AccountFlags.FROZEN,
    WalletEventType.UNFROZEN: lambda flags: flags & ~AccountFlags.FROZEN,
    WalletEventType.CLOSED: lambda flags: flags | AccountFlags.CLOSED,
}
_FIRST: Final = UUID(int=0)


class ProjectionStore:
    """The Histories of `core.services.wallets.projections`, under the worker role."""

    async def compare(self, uow: UnitOfWork, projection: Projection, after: UUID | None, limit: int) -> Compared:
        """Compare one page, in the order of ids."""
        table, text, column = _TABLES[projection]
        rows = await uow.connection.fetch(
            f"{text} WHERE {column} IN (SELECT id FROM {table} WHERE id > $1 ORDER BY id LIMIT $2)"  # noqa: S608
            f" ORDER BY {column}",
            after or _FIRST,
            limit,
        )
        different = tuple(
            Difference(projection, row["id"], row["tenant_id"], _text(row["stored"]), _text(row["history"]))
            for row in rows
            if row["stored"] != row["history"]
        )
        return Compared(different, len(rows), rows[-1]["id"] if len(rows) == limit else None)

    async def remake(self, uow: UnitOfWork, projection: Projection, subjects: Sequence[UUID]) -> list[UUID]:
        """Make rows anew that still differ once they are locked: a second statement sees what was waited for."""
        made = _MADE_OF.get(projection, projection)
        table, text, column = _TABLES[made]
        await uow.connection.execute(
            f"SELECT FROM {table} WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE",
            subjects,
        )
        rows = await uow.connection.fetch(
            f"WITH told AS MATERIALIZED ({text} WHERE {column} = ANY ($1::uuid[])) {_WRITES[made]}",
            subjects,
        )
        return [row["id"] for row in rows]

    async def missing_accounts(self, uow: UnitOfWork, after: UUID | None, limit: int) -> list[MissingAccount]:
        """Find accounts that are named and not there."""
        rows = await uow.connection.fetch(_MISSING, after or _FIRST, limit)
        intents = await IntentStore().load_intents(uow, [each for row in rows for each in row["intents"]])
        named: dict[UUID, list[str]] = {}
        for row in await uow.connection.fetch(_PROVIDER_ACCOUNTS, list({row["tenant_id"] for row in rows})):
            named.setdefault(row["tenant_id"], []).append(row["name"])
        return [
            MissingAccount(
                row["id"],
                row["tenant_id"],
                row["ledger"] or currency_of(row["currency"]).numeric,
                None if row["currency"] is None else _wallet_flags(row["events"] or ()),
                row["may_overdraw"],
                tuple(intents[each] for each in row["intents"] if each in intents),
                tuple(named.get(row["tenant_id"], ())),
            )
            for row in rows
        ]

    async def make_accounts(self, uow: UnitOfWork, accounts: Sequence[Account]) -> list[UUID]:
        """Make accounts anew. Nobody sees them before they hold what their transfers sum to."""
        rows = await uow.connection.fetch(
            _MAKE,
            [account.id for account in accounts],
            [account.tenant_id for account in accounts],
            [account.ledger for account in accounts],
            [account.code for account in accounts],
            [int(account.flags) for account in accounts],
        )
        made = [row["id"] for row in rows]
        await self.remake(uow, Projection.ACCOUNT_BALANCE, made)
        return made


def _wallet_flags(events: Sequence[str]) -> AccountFlags:
    flags = AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS
    for event in events:
        if event in _FLAG_EVENTS:
            flags = _FLAG_EVENTS[WalletEventType(event)](flags)
    return flags


def _text(values: Sequence[object]) -> str:
    return "/".join(map(str, values))
