"""Idempotency keys: claimed and looked up in one call, with all else that acceptance reads in its transaction."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from core.services.accept import Claim, Claimed, InFlightError, Known
from core.services.authorize import Moment
from core.store.database import UnitOfWork

# One round trip tells the moment and the subjects' keys too: a payment that comes alone pays for each.
_CLAIM: Final = """
SELECT now() AS now, coalesce((SELECT max(epoch) FROM fleet.ledger_epochs), 1) AS epoch, k.key, k.request_hash AS bytes,
    k.intent_id AS id
FROM (SELECT) AS once LEFT JOIN fleet.claim_idempotency_keys($1, $2, $3, $4, $5, $6) k ON true
UNION ALL
SELECT now(), 0, NULL, wrapped_key, id FROM fleet.subjects WHERE id = ANY ($7::uuid[])
"""


class IdempotencyStore:
    """The keys of money requests; they never expire."""

    async def claim(
        self, uow: UnitOfWork, service_key_id: str, claims: Sequence[Claim], subjects: Sequence[UUID]
    ) -> Claimed:
        """Claim what is valid and new; return the moment, what each key stands for, and the subjects' keys.

        Raises InFlightError.
        """
        try:
            rows = await uow.connection.fetch(
                _CLAIM,
                uow.context.tenant_id,
                service_key_id,
                [claim.key for claim in claims],
                [claim.request_hash for claim in claims],
                [claim.intent_id for claim in claims],
                [claim.valid for claim in claims],
                subjects,
            )
        except asyncpg.LockNotAvailableError as error:
            raise InFlightError from error
        known: dict[str, Known] = {}
        wrapped_keys: dict[UUID, bytes | None] = {}
        for row in rows:
            if row["key"] is not None:
                known[row["key"]] = Known(row["bytes"], row["id"])
            elif row["id"] is not None:
                wrapped_keys[row["id"]] = row["bytes"]
        epoch = max(row["epoch"] for row in rows)
        return Claimed(Moment(rows[0]["now"], epoch), known, wrapped_keys)
