"""Intents in PostgreSQL: inserted, moved and read in batches; every change writes its event in the same statement."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, cast
from uuid import UUID

import orjson

from core.domain.exchange import ExchangeTerms
from core.domain.fee_legs import FeeLeg, legs_of_plain, plain_legs
from core.domain.intents import ALLOWED, IntentRow, Move
from core.services.payments.authorize import Moment
from core.services.payments.read_intents import IntentFilter
from core.store.columns import listed, lone_row, spare, spared_rows
from core.store.payments.sights import sees, sees_all
from core.store.settling.announced_returns import returned_of
from core.store.told.event_wakes import WAKE_FOLLOWERS
from core.store.unit_of_work import UnitOfWork, Write
from schemas.announced_returns import ReturnedView
from schemas.events import IntentState

INTENT_COLUMNS: Final = tuple(field.name for field in fields(IntentRow))
"""The columns that make an IntentRow, in its order."""
_JSON_COLUMNS: Final = ("auto_confirm", "lookup", "limits", "on_behalf_of", "next_action", "payee_qr")
_INSERTED: Final = {
    "id": "uuid",
    "tenant_id": "uuid",
    "service_key_id": "text",
    "operation": "text",
    "state": "text",
    "version": "int",
    "wallet_id": "uuid",
    "amount_minor": "bigint",
    "currency": "text",
    "fee_minor": "bigint",
    "client_reference": "text",
    "rail": "text",
    "provider": "text",
    "provider_account": "text",
    "environment": "text",
    "subject_id": "uuid",
    "instruction": "bytea",
    "payee_type": "text",
    "payee_masked": "text",
    "payee_qr": "jsonb",
    "auto_confirm": "jsonb",
    "limits": "jsonb",
    "accept_state": "text",
    "failure_code": "text",
    "failure_message": "text",
    "decision": "text",
    "deadline": "timestamptz",
    "ledger_epoch": "int",
    "traceparent": "text",
    "fee_legs": "jsonb",
    "asked_minor": "bigint",
    "counterparty_wallet_id": "uuid",
    "direction": "text",
    "original_intent_id": "uuid",
    "provider_reference": "text",
    "requires_monitoring": "boolean",
    "review_until": "timestamptz",
    "on_behalf_of": "jsonb",
    "exchange": "jsonb",
    "comment": "text",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
}
_ACTORS: Final = f"${len(_INSERTED) + 1}::text[]"
# One for all, as `spare` has it, or each request's own: who acts for users asks for many of them at once.
_ACTOR: Final = (
    f"CASE cardinality({_ACTORS}) WHEN 1 THEN ({_ACTORS})[1] ELSE ({_ACTORS})[array_position($1::uuid[], id)] END"
)


def _insert(rows: str, actor: str) -> Write:
    return Write(
        f"""
made_intents AS (
    INSERT INTO fleet.intents ({", ".join(_INSERTED)})
    {rows}
    RETURNING id, version, tenant_id, state, deadline, traceparent, failure_code, original_intent_id,
        on_behalf_of
), told_intents AS (
    INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor, data, traceparent)
    SELECT id, version, tenant_id, 'accepted', state, {actor},
        jsonb_strip_nulls(jsonb_build_object('deadline', deadline, 'reason', failure_code,
            'original_intent_id', original_intent_id, 'on_behalf_of', on_behalf_of)), traceparent
    FROM made_intents RETURNING intent_id
)
""",  # noqa: S608 - the names are this module's own
        frozenset({"intents", "intent_events"}),
        f"SELECT count(*) + 0 * {WAKE_FOLLOWERS} FROM told_intents",  # noqa: S608 - a constant
    )


# The fees of a batch are few texts, over and over, and PostgreSQL takes as long to read one as to write its row.
_FEE_LEGS_AT: Final = list(_INSERTED).index("fee_legs")
_FEE_LEGS: Final = f"${len(_INSERTED) + 2}::jsonb[]"
_INSERT: Final = _insert(
    spared_rows(list((_INSERTED | {"fee_legs": "int"}).values()), {_FEE_LEGS_AT + 1: _FEE_LEGS}), _ACTOR
)
_INSERT_ONE: Final = _insert(lone_row(list(_INSERTED.values())), f"${len(_INSERTED) + 1}::text")

_MOVED: Final = (
    "uuid", "text", "text", "text", "jsonb", "text", "text", "text", "text", "bigint", "jsonb", "jsonb", "timestamptz",
    "bool",
)  # fmt: skip
_MOVE: Final = Write(
    f"""
moved_intents AS (
    UPDATE fleet.intents i SET
        state = m.state, version = i.version + 1, updated_at = now(),
        failure_code = coalesce(m.failure_code, i.failure_code),
        failure_message = coalesce(m.failure_message, i.failure_message),
        decision = coalesce(m.decision, i.decision),
        provider_reference = coalesce(m.provider_reference, i.provider_reference),
        fee_minor = coalesce(m.fee_minor, i.fee_minor),
        lookup = coalesce(m.lookup, i.lookup),
        limits = coalesce(m.limits, i.limits),
        deadline = coalesce(m.deadline, i.deadline),
        review_until = CASE WHEN m.state = 'REVIEW' THEN coalesce(m.deadline, i.deadline) END,
        parked_at = CASE WHEN m.parked IS NULL THEN i.parked_at WHEN m.parked THEN now() END
    FROM ({spared_rows(_MOVED)})
        AS m(id, state, allowed, type, data, failure_code, failure_message, decision, provider_reference, fee_minor,
             lookup, limits, deadline, parked)
    WHERE i.id = ANY ($1::uuid[]) AND i.id = m.id AND i.id BETWEEN $15 AND $16
        AND i.state = ANY (string_to_array(m.allowed, ','))
    RETURNING i.id, i.version, i.tenant_id, m.type, i.state, m.data, i.traceparent
), told_moves AS (
    INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor, data, traceparent)
    SELECT id, version, tenant_id, type, state, $17, data, traceparent FROM moved_intents
    RETURNING intent_id
)
""",  # noqa: S608 - a constant
    frozenset({"intents", "intent_events"}),
    f"SELECT count(*) + 0 * {WAKE_FOLLOWERS} FROM told_moves",  # noqa: S608 - a constant
)
# Of many that end alike, each with a transaction of its own, found by bisection: no rows to be unnested and joined, and
# no more columns than an end has.
_END_ALIKE: Final = Write(
    """
moved_intents AS (
    UPDATE fleet.intents i SET
        state = $4, version = i.version + 1, updated_at = now(), review_until = NULL, parked_at = NULL,
        failure_code = coalesce($8, i.failure_code), failure_message = coalesce($9, i.failure_message),
        decision = coalesce($10, i.decision),
        provider_reference = coalesce(($11::text[])[width_bucket(i.id, $1::uuid[])], i.provider_reference)
    WHERE i.id = ANY ($1::uuid[]) AND i.id BETWEEN $2 AND $3 AND i.state = ANY ($5::text[])
    RETURNING i.id, i.version, i.tenant_id, i.traceparent
), told_moves AS (
    INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor, data, traceparent)
    SELECT id, version, tenant_id, $6, $4, $12, $7::jsonb, traceparent FROM moved_intents
    RETURNING intent_id
)
""",
    _MOVE.tables,
    _MOVE.count,
)
_MOVE_NOW: Final = f"WITH {_MOVE.parts} SELECT id, {WAKE_FOLLOWERS} FROM moved_intents"  # noqa: S608 - a constant
_LATE: Final = f"""
WITH paid AS (
    UPDATE fleet.intents i SET provider_reference = n.reference, version = i.version + 1, updated_at = now()
    FROM unnest($1::uuid[], $2::text[]) AS n(id, reference)
    WHERE i.id = ANY ($1::uuid[]) AND i.id = n.id AND i.id BETWEEN $3 AND $4 AND i.provider_reference IS NULL
    RETURNING i.id, i.version, i.tenant_id, i.state, i.traceparent
), told AS (
    INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor, traceparent)
    SELECT id, version, tenant_id, 'paid_after_void', state, $5, traceparent FROM paid
)
SELECT {WAKE_FOLLOWERS}
"""  # noqa: S608 - a constant
_SELECT: Final = f"SELECT {', '.join(INTENT_COLUMNS)} FROM fleet.intents"  # noqa: S608 - the names are the row's own
# One that ended unpaid and proves paid has left nonetheless, whether or not that fact could be applied.
_REFUNDS: Final = f"""
{_SELECT} i WHERE original_intent_id = ANY ($1::uuid[])
    AND (state NOT IN ('FAILED', 'CANCELLED', 'EXPIRED') OR direction = 'OUT' AND EXISTS (
        SELECT FROM fleet.jobs q JOIN fleet.facts f ON f.job_id = q.id
        WHERE q.intent_id = i.id AND f.verdict IN ('SUCCEEDED', 'PAID', 'RETURNED')))
ORDER BY id
"""
_ALIKE: Final = attrgetter(
    *(name for name in Move.__dataclass_fields__ if name not in {"intent_id", "provider_reference"})
)
_ALLOWED_TEXT: Final = {state: ",".join(sorted(sources)) for state, sources in ALLOWED.items()}


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _json_reader(name: str) -> Callable[[IntentRow], str | None]:
    read = attrgetter(name)
    return lambda intent: _json(read(intent))


def _exchange(intent: IntentRow) -> str | None:
    return None if intent.exchange is None else _json(intent.exchange.record())


def _fee_legs(intent: IntentRow) -> str | None:
    return _legs_text(intent.fee_legs) if intent.fee_legs else None


def _legs_text(legs: Sequence[FeeLeg]) -> str:
    return orjson.dumps(plain_legs(legs)).decode()


_READERS: Final = [
    {"fee_legs": _fee_legs, "exchange": _exchange}.get(name)
    or (_json_reader(name) if name in _JSON_COLUMNS else attrgetter(name))
    for name in _INSERTED
]


class IntentStore:
    """The intents of the unit of work's tenant, or of all under the worker role."""

    async def moment(self, uow: UnitOfWork) -> Moment:
        """Return the database's clock and the ledger epoch."""
        rows = await uow.connection.fetch(
            "SELECT now() AS now, coalesce(max(epoch), 1) AS epoch FROM fleet.ledger_epochs"
        )
        return Moment(rows[0]["now"], rows[0]["epoch"])

    async def insert_intents(self, uow: UnitOfWork, intents: Sequence[IntentRow], actors: Sequence[str] = ()) -> None:
        """Insert intents that are new, each with its first event, by these actors; else by the transaction's."""
        if len(intents) == 1:
            [intent] = intents
            await uow.later(_INSERT_ONE, *(read(intent) for read in _READERS), (*actors, uow.context.actor)[0])
        elif intents:
            fees, places = listed([intent.fee_legs or None for intent in intents])
            columns = [
                places if number == _FEE_LEGS_AT else list(map(read, intents)) for number, read in enumerate(_READERS)
            ]
            await uow.later(
                _INSERT,
                columns[0],
                *map(spare, columns[1:]),
                spare(list(actors) or [uow.context.actor]),
                list(map(_legs_text, fees)),
            )

    async def move_intents(self, uow: UnitOfWork, moves: Sequence[Move]) -> set[UUID]:
        """Move intents whose state allows it and write one event each; return which moved.

        At most one move per intent. What did not move was moved by an earlier fact: states never go back.
        """
        if not moves:
            return set()
        return {row["id"] for row in await uow.connection.fetch(_MOVE_NOW, *_move_columns(uow, moves))}

    async def move_locked_intents(self, uow: UnitOfWork, moves: Sequence[Move]) -> None:
        """Move intents that are locked and in a state that allows it, at the latest with the commit.

        Raises WriteMissedError, now or then, where one does not move: the caller saw what is not there.
        """
        if not moves:
            return
        if _end_alike(moves):
            await uow.later(_END_ALIKE, *_end_columns(uow, moves), expected=len(moves))
        else:
            await uow.later(_MOVE, *_move_columns(uow, moves), expected=len(moves))

    async def paid_after_void(self, uow: UnitOfWork, references: Mapping[UUID, str]) -> None:
        """Name the provider's transaction of locked intents that ended unpaid, so that a second one is told apart."""
        ids = sorted(references, key=lambda intent_id: intent_id.int)
        named = [references[intent_id] for intent_id in ids]
        await uow.connection.execute(_LATE, ids, named, ids[0], ids[-1], uow.context.actor)

    async def load_intents(self, uow: UnitOfWork, ids: Sequence[UUID], *, lock: bool = False) -> dict[UUID, IntentRow]:
        """Return the intents that exist and are visible; with `lock`, locked in id order until the end."""
        if not ids:
            return {}
        text = f"{_SELECT} WHERE id = ANY ($1::uuid[]) AND id >= $2 AND id <= $3 ORDER BY id"
        if lock:
            text += " FOR NO KEY UPDATE"
        ordered = sorted(ids, key=lambda identifier: identifier.int)
        rows = await uow.connection.fetch(text, ids, ordered[0], ordered[-1])
        return {row["id"]: intent_of(row) for row in rows}

    async def returned_of(self, uow: UnitOfWork, intent_id: UUID) -> ReturnedView | None:
        """Return what came back of a payment, or is announced to; None where nothing is known of that."""
        return await returned_of(uow, intent_id)

    async def refunds_of(self, uow: UnitOfWork, originals: Sequence[UUID]) -> list[IntentRow]:
        """Return the refunds of payments, oldest first, but those that ended unpaid and never proved paid."""
        return [intent_of(row) for row in await uow.connection.fetch(_REFUNDS, originals)]

    async def has_event(self, uow: UnitOfWork, intent_id: UUID, kind: str, actor: str) -> bool:
        """Whether this actor caused an event of this kind."""
        return bool(
            await uow.connection.fetchval(
                "SELECT true FROM fleet.intent_events WHERE intent_id = $1 AND type = $2 AND actor = $3 LIMIT 1",
                intent_id,
                kind,
                actor,
            )
        )

    async def lock_unreviewed(self, uow: UnitOfWork, limit: int) -> list[UUID]:
        """Lock intents whose review has not come in time, but those that another transaction has locked."""
        rows = await uow.connection.fetch(
            "SELECT id FROM fleet.intents WHERE review_until IS NOT NULL AND review_until <= now()"
            " ORDER BY review_until LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED",
            limit,
        )
        return [row["id"] for row in rows]

    async def accept_deadlines(self, uow: UnitOfWork, ids: Sequence[UUID]) -> dict[UUID, datetime | None]:
        """Return the deadline that each intent had when it was accepted, for replays of the first answer."""
        rows = await uow.connection.fetch(
            "SELECT intent_id, (data->>'deadline')::timestamptz AS deadline FROM fleet.intent_events"
            " WHERE intent_id = ANY ($1::uuid[]) AND seq = 1",
            ids,
        )
        return {row["intent_id"]: row["deadline"] for row in rows}

    async def page_of_intents(
        self, uow: UnitOfWork, wanted: IntentFilter, before: UUID | None, limit: int
    ) -> list[IntentRow]:
        """Return up to `limit` intents of the tenant, newest first, older than `before`."""
        conditions = ["tenant_id = $1"]
        values: list[Any] = [uow.context.tenant_id]
        for text, value in (
            ("state = {}", wanted.state),
            ("wallet_id = {}", wanted.wallet_id),
            ("client_reference = {}", wanted.reference),
            ("original_intent_id = {}", wanted.original_intent_id),
            ("created_at >= {}", wanted.created_after),
            ("id >= fleet.first_id_at({}::timestamptz - interval '1 minute')", wanted.created_after),
            ("created_at < {}", wanted.created_before),
            (_sees(wanted), wanted.accounts),
            ("id < {}", before),
        ):
            if value is not None:
                values.append(value)
                conditions.append(text.format(f"${len(values)}"))
        if wanted.state is IntentState.REVIEW:
            conditions.append("review_until IS NOT NULL")  # the index over the few that wait
        statement = f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT {int(limit)}"
        return [intent_of(row) for row in await uow.connection.fetch(statement, *values)]


def _sees(wanted: IntentFilter) -> str:
    own = "ANY ({0}::uuid[])"
    # A reference is the payer's: who gets the money finds nothing by it, and so cannot try which one it is.
    return sees_all(own) if wanted.reference is not None else sees(own, state="state")


def _end_alike(moves: Sequence[Move]) -> bool:
    """Whether the moves are ends that differ in the intent and the provider's transaction alone."""
    first = moves[0]
    ends = first.to.is_terminal and first.parked is False
    adds_nothing = all(each is None for each in (first.fee_minor, first.lookup, first.limits, first.deadline))
    alike = _ALIKE(first)
    return ends and adds_nothing and all(_ALIKE(move) == alike for move in moves)


def _end_columns(uow: UnitOfWork, moves: Sequence[Move]) -> list[Any]:
    moves = sorted(moves, key=lambda move: move.intent_id.int)
    first, ids = moves[0], [move.intent_id for move in moves]
    return [
        ids,
        ids[0],
        ids[-1],
        first.to,
        sorted(ALLOWED[first.to]),
        first.type,
        _json(first.data),
        first.failure_code,
        first.failure_message,
        first.decision,
        [move.provider_reference for move in moves],
        uow.context.actor,
    ]


def _move_columns(uow: UnitOfWork, moves: Sequence[Move]) -> list[Any]:
    moves = sorted(moves, key=lambda move: move.intent_id.int)
    return [
        [move.intent_id for move in moves],
        spare([move.to for move in moves]),
        spare([_ALLOWED_TEXT[move.to] for move in moves]),
        spare([move.type for move in moves]),
        spare([_json(move.data) for move in moves]),
        spare([move.failure_code for move in moves]),
        spare([move.failure_message for move in moves]),
        spare([move.decision for move in moves]),
        spare([move.provider_reference for move in moves]),
        spare([move.fee_minor for move in moves]),
        spare([_json(move.lookup) for move in moves]),
        spare([_json(move.limits) for move in moves]),
        spare([move.deadline for move in moves]),
        spare([move.parked for move in moves]),
        moves[0].intent_id,
        moves[-1].intent_id,
        uow.context.actor,
    ]


def intent_of(values: Iterable[Any]) -> IntentRow:
    """Return the intent in the values of INTENT_COLUMNS."""
    intent = IntentRow(*values)
    for name in _JSON_COLUMNS:
        if (text := getattr(intent, name)) is not None:
            setattr(intent, name, orjson.loads(text))
    intent.fee_legs = legs_of_plain(orjson.loads(cast("str", intent.fee_legs))) if intent.fee_legs is not None else ()
    if intent.exchange is not None:
        intent.exchange = ExchangeTerms.of_record(orjson.loads(cast("str", intent.exchange)))
    return intent
