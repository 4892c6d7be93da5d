"""Idempotency keys: claimed and looked up in one call."""

from collections.abc import Sequence
from typing import Final

import asyncpg

from core.services.accept import Claim, InFlightError, Known
from core.services.authorize import Moment
from core.store.database import UnitOfWork

# One round trip tells the moment too: a payment that comes alone pays for each.
_CLAIM: Final = """
SELECT now() AS now, coalesce((SELECT max(epoch) FROM fleet.ledger_epochs), 1) AS epoch, k.*
FROM (SELECT) AS once LEFT JOIN fleet.claim_idempotency_keys($1, $2, $3, $4, $5, $6) k ON true
"""


class IdempotencyStore:
    """The keys of money requests; they never expire."""

    async def claim(
        self, uow: UnitOfWork, service_key_id: str, claims: Sequence[Claim]
    ) -> tuple[Moment, dict[str, Known]]:
        """Claim what is valid and new; return the transaction's moment and what each key stands for.

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
            )
        except asyncpg.LockNotAvailableError as error:
            raise InFlightError from error
        known = {row["key"]: Known(row["request_hash"], row["intent_id"]) for row in rows if row["key"] is not None}
        return Moment(rows[0]["now"], rows[0]["epoch"]), known
