"""Idempotency keys: claimed and looked up in one call, with all else that acceptance reads in its transaction."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import asyncpg

from core.services.payments.accept import Claim, Claimed, InFlightError, Known
from core.services.payments.authorize import Moment
from core.store.database import UnitOfWork

# One round trip tells the moment and the subjects' keys too: a payment that comes alone pays for each.
_CLAIM: Final = """
SELECT now() AS now, coalesce((SELECT max(epoch) FROM fleet.ledger_epochs), 1) AS epoch, k.key, k.request_hash AS bytes,
    k.intent_id AS id, k.replayed
FROM (SELECT) AS once LEFT JOIN fleet.claim_requests($1, $2, $3, $4, $5, $6, $8::text[]) k ON true
UNION ALL
SELECT now(), 0, NULL, wrapped_key, id, false FROM fleet.subjects WHERE id = ANY ($7::uuid[])
"""
_CLAIM_ONE: Final = """
SELECT now() AS now, coalesce((SELECT max(epoch) FROM fleet.ledger_epochs), 1) AS epoch, k.request_hash, k.intent_id,
    k.replayed, s.id AS subject_id, s.wrapped_key
FROM fleet.claim_request($1, $2, $3, $4, $5, $6, $7) k LEFT JOIN fleet.subjects s ON s.id = $8
"""
_FIRST: Final = """
SELECT key, request_hash, intent_id FROM fleet.idempotency_keys
WHERE tenant_id = $1 AND service_key_id = $2 AND key = ANY ($3::text[])
"""


class IdempotencyStore:
    """The keys of money requests; they never expire."""

    async def claim(
        self, uow: UnitOfWork, service_key_id: str, claims: Sequence[Claim], subjects: Sequence[UUID]
    ) -> Claimed:
        """Spend the nonces and claim what is valid and new.

        Return the moment, what each key stands for, and the subjects' keys. Raises InFlightError.
        """
        tenant_id = uow.context.tenant_id
        try:
            if len(claims) == 1:
                [claim] = claims
                subject = subjects[0] if subjects else None
                columns = (claim.key, claim.request_hash, claim.intent_id, claim.valid, claim.nonce, subject)
                rows = await uow.connection.fetch(_CLAIM_ONE, tenant_id, service_key_id, *columns)
                return _one_claimed(claim.key, rows[0])
            rows = await uow.connection.fetch(
                _CLAIM,
                tenant_id,
                service_key_id,
                [claim.key for claim in claims],
                [claim.request_hash for claim in claims],
                [claim.intent_id for claim in claims],
                [claim.valid for claim in claims],
                subjects,
                [claim.nonce for claim in claims],
            )
        except asyncpg.LockNotAvailableError as error:
            raise InFlightError from error
        claimed = _all_claimed(rows)
        told = claimed.known.keys() | claimed.replayed
        missing = [claim.key for claim in claims if claim.valid and claim.key not in told]
        if not missing:
            return claimed
        # Their keys were committed by another process while this one waited for them.
        rows = await uow.connection.fetch(_FIRST, tenant_id, service_key_id, missing)
        first = {row["key"]: Known(row["request_hash"], row["intent_id"]) for row in rows}
        return replace(claimed, known={**claimed.known, **first})


def _one_claimed(key: str, row: Any) -> Claimed:
    known = {} if row["intent_id"] is None else {key: Known(row["request_hash"], row["intent_id"])}
    wrapped_keys = {} if row["subject_id"] is None else {row["subject_id"]: row["wrapped_key"]}
    replayed = frozenset([key] if row["replayed"] else ())
    return Claimed(Moment(row["now"], row["epoch"]), known, wrapped_keys, replayed)


def _all_claimed(rows: Sequence[Any]) -> Claimed:
    known: dict[str, Known] = {}
    replayed: set[str] = set()
    wrapped_keys: dict[UUID, bytes | None] = {}
    for row in rows:
        if row["replayed"]:
            replayed.add(row["key"])
        elif row["key"] is not None:
            known[row["key"]] = Known(row["bytes"], row["id"])
        elif row["id"] is not None:
            wrapped_keys[row["id"]] = row["bytes"]
    epoch = max(row["epoch"] for row in rows)
    return Claimed(Moment(rows[0]["now"], epoch), known, wrapped_keys, frozenset(replayed))
