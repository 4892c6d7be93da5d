"""What is known of one payment, from every table that tells something about it."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from core.store.database import UnitOfWork
from schemas.money import money_text
from schemas.on_call import StoryLine

_INTENT_OF: Final = """
SELECT id FROM fleet.intents WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2)
UNION ALL SELECT intent_id FROM fleet.jobs WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2)
UNION ALL SELECT intent_id FROM fleet.dead_letters
    WHERE id = $1 AND intent_id IS NOT NULL AND ($2::uuid IS NULL OR tenant_id = $2)
LIMIT 1
"""
_STATE: Final = """
SELECT state, operation, amount_minor, currency, decision,
    decision IS NULL AND state IN ('REVIEW', 'AUTHORIZED', 'DISPATCHED', 'UNRESOLVED') AS held
FROM fleet.intents WHERE id = $1
"""

# Each part tells: when, what, in words, and the fields behind the words. Nothing personal is among them.
_LINES: Final = """
WITH own AS (SELECT id, kind, reference FROM fleet.jobs WHERE intent_id = $1)
SELECT at, 'event' AS what, type || ' -> ' || state || ' by ' || actor AS text, data::text AS data, seq AS place
FROM fleet.intent_events WHERE intent_id = $1
UNION ALL
SELECT a.granted_at, 'permit', 'fence ' || a.fence || ' to ' || CASE a.mode WHEN 'SEND' THEN 'send' ELSE 'inquire' END
    || ' under ' || a.reference, jsonb_build_object('fence', a.fence, 'mode', a.mode, 'reference', a.reference,
    'provider_account', a.provider_account, 'environment', a.environment, 'key', a.service_key_id)::text, a.fence
FROM own JOIN fleet.attempts a ON a.job_id = own.id
UNION ALL
SELECT a.negative_at, 'negative', 'fence ' || a.fence || ' is proven unpaid',
    jsonb_build_object('fence', a.fence)::text, a.fence
FROM own JOIN fleet.attempts a ON a.job_id = own.id WHERE a.negative_at IS NOT NULL
UNION ALL
SELECT f.received_at, 'fact', own.kind || ': ' || f.verdict || coalesce(', not applied: ' || f.quarantine, ''),
    jsonb_build_object('verdict', f.verdict, 'fence', f.fence, 'applied_at', f.applied_at, 'quarantine', f.quarantine,
        'evidence_id', f.evidence_id, 'provider_tx_id', f.body->'provider_tx_id', 'reason', f.body->'reason',
        'amount_minor', f.body->'amount_minor')::text, f.fence
FROM own JOIN fleet.facts f ON f.job_id = own.id
UNION ALL
SELECT e.received_at, 'evidence', e.kind || ' is kept, sealed', jsonb_build_object('evidence_id', e.id)::text, 0
FROM own JOIN fleet.evidence e ON e.job_id = own.id
UNION ALL
SELECT t.created_at, 'transfer', CASE WHEN t.flags & 2 = 2 THEN 'hold' WHEN t.flags & 4 = 4 THEN 'post'
    WHEN t.flags & 8 = 8 THEN 'void' ELSE 'transfer' END || ' of ',
    jsonb_build_object('id', t.id, 'amount_minor', t.amount_minor, 'currency', i.currency, 'debit', t.debit_account_id,
        'credit', t.credit_account_id)::text, t.flags::integer
FROM fleet.intents i JOIN fleet.transfers t
    ON t.debit_account_id = i.wallet_id AND t.user_data = i.id
WHERE i.id = $1
UNION ALL
SELECT d.received_at, 'letter', d.error_class || ': ' || d.message || ' (' || d.state
    || CASE WHEN d.closed_because = '' THEN '' ELSE ': ' || d.closed_because END || ')',
    jsonb_build_object('id', d.id, 'class', d.error_class, 'fingerprint', d.fingerprint, 'state', d.state)::text, 0
FROM fleet.dead_letters d WHERE d.intent_id = $1
UNION ALL
SELECT coalesce(x.acted_at, r.created_at), 'redrive', lower(r.action) || ' for ' || r.incident || ': ' || x.state
    || coalesce(' ' || x.verdict, '') || CASE WHEN x.detail = '' THEN '' ELSE ', ' || x.detail END,
    jsonb_build_object('redrive_id', r.id, 'asked_by', r.asked_by, 'decided_by', r.decided_by,
        'reason', r.reason)::text, 0
FROM fleet.dead_letters d JOIN fleet.redrive_items x ON x.letter_id = d.id JOIN fleet.redrives r ON r.id = x.redrive_id
WHERE d.intent_id = $1
UNION ALL
SELECT l.raised_at, 'alert', l.severity || ' ' || l.kind || ': ' || l.detail,
    jsonb_build_object('kind', l.kind, 'closed_at', l.closed_at)::text, 0
FROM fleet.alerts l WHERE l.intent_id = $1
UNION ALL
SELECT n.told_at, 'announced',
    concat_ws(' ', 'its return', nullif(n.reason, ''), nullif(n.provider_reason, '')) || ': ',
    jsonb_build_object('name', n.name, 'amount_minor', n.amount_minor, 'currency', n.currency, 'reason', n.reason,
        'provider_reason', n.provider_reason, 'evidence_id', n.evidence_id)::text, 0
FROM fleet.announced_returns n WHERE n.intent_id = $1
UNION ALL
SELECT u.at, 'audit', u.action || ' by ' || u.actor, u.data, u.seq::integer
FROM fleet.audit_entries u WHERE u.subject = 'intent:' || $1::text
ORDER BY 1, 2, 5
"""


class StoryStore:
    """See `core.services.on_call.explain.Stories`."""

    async def intent_of(self, uow: UnitOfWork, any_id: UUID, tenant_id: UUID | None) -> UUID | None:
        """Return the payment that an id names."""
        found: UUID | None = await uow.connection.fetchval(_INTENT_OF, any_id, tenant_id)
        return found

    async def state_of(self, uow: UnitOfWork, intent_id: UUID) -> dict[str, Any]:
        """Return where the payment stands."""
        return dict((await uow.connection.fetch(_STATE, intent_id))[0])

    async def lines_of(self, uow: UnitOfWork, intent_id: UUID) -> list[StoryLine]:
        """Return everything that happened, oldest first."""
        rows = await uow.connection.fetch(_LINES, intent_id)
        return [_line(row["at"], row["what"], row["text"], orjson.loads(row["data"])) for row in rows]


def _line(at: datetime, what: str, text: str, data: dict[str, Any]) -> StoryLine:
    if what in ("transfer", "announced"):
        text += money_text(data["amount_minor"], data["currency"])
    return StoryLine(at=at, what=what, text=text, data=data)
