"""Nonces of signed requests, claimed for many requests at once."""

from collections.abc import Sequence
from uuid import UUID

from core.store.database import Database


class NonceStore:
    """Claims outlive the process; a janitor purges what is older than any accepted timestamp."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim_nonces(self, nonces: Sequence[tuple[UUID, str, str]]) -> list[bool]:
        """Return for each (tenant, key id, nonce) whether it was new."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(
                "SELECT place FROM fleet.claim_nonces($1, $2, $3) AS place",
                [tenant for tenant, _, _ in nonces],
                [key for _, key, _ in nonces],
                [nonce for _, _, nonce in nonces],
            )
        new = {row["place"] for row in rows}
        return [place in new for place in range(1, len(nonces) + 1)]
