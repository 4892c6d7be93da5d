"""What banks have sent, in PostgreSQL, sealed and never changed."""

from typing import Final

from core.services.vault_port import Vault
from core.store.database import UnitOfWork
from schemas.bank_messages import KeptMessage, MessagesAsked, MessageToKeep

_PAGE: Final = 50
_PAGE_BYTES: Final = 2_000_000
_INSERT: Final = """
INSERT INTO fleet.rail_messages (rail, provider_account, environment, number, ciphertext) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING RETURNING number
"""
# A page is bounded by what its messages weigh; one that is heavier comes alone.
_KEPT: Final = """
SELECT number, ciphertext FROM (
    SELECT number, ciphertext, sum(octet_length(ciphertext)) OVER (ORDER BY number) AS bytes FROM (
        SELECT number, ciphertext FROM fleet.rail_messages
        WHERE rail = $1 AND provider_account = $2 AND environment = $3 AND number >= $4 ORDER BY number LIMIT $5) page
    ) weighed
WHERE bytes <= $6 OR bytes = octet_length(ciphertext) ORDER BY number
"""


class MessageStore:
    """Messages by rail, account and number."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def keep(self, uow: UnitOfWork, rail: str, message: MessageToKeep) -> bool:
        """Keep a message; False where one of its number is kept already."""
        scope = (rail, message.provider_account, message.environment, message.number)
        sealed = self._vault.seal_bytes(message.body, bound_to=_place(*scope))
        return await uow.connection.fetchval(_INSERT, *scope, sealed) is not None

    async def kept(self, uow: UnitOfWork, rail: str, asked: MessagesAsked) -> list[KeptMessage]:
        """Return a page of messages from a number on."""
        scope = (rail, asked.provider_account, asked.environment)
        rows = await uow.connection.fetch(_KEPT, *scope, asked.first, _PAGE, _PAGE_BYTES)
        return [
            KeptMessage.model_construct(
                number=row["number"],
                body=self._vault.open_bytes(row["ciphertext"], bound_to=_place(*scope, row["number"])),
            )
            for row in rows
        ]


def _place(rail: str, provider_account: str, environment: str, number: int) -> str:
    return f"message:{rail}:{provider_account}:{environment}:{number}"
