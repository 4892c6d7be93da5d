"""Idempotency keys: claimed and looked up in one call."""

from collections.abc import Sequence

import asyncpg

from core.services.accept import Claim, InFlightError, Known
from core.store.database import UnitOfWork


class IdempotencyStore:
    """The keys of money requests; they never expire."""

    async def claim(self, uow: UnitOfWork, service_key_id: str, claims: Sequence[Claim]) -> dict[str, Known]:
        """Claim what is valid and new; return what each key stands for. Raises InFlightError."""
        try:
            rows = await uow.connection.fetch(
                "SELECT * FROM fleet.claim_idempotency_keys($1, $2, $3, $4, $5, $6)",
                uow.context.tenant_id,
                service_key_id,
                [claim.key for claim in claims],
                [claim.request_hash for claim in claims],
                [claim.intent_id for claim in claims],
                [claim.valid for claim in claims],
            )
        except asyncpg.LockNotAvailableError as error:
            raise InFlightError from error
        return {row["key"]: Known(row["request_hash"], row["intent_id"]) for row in rows}
