"""What banks have sent, in PostgreSQL, sealed and never changed."""

from typing import Final

from core.services.vault_port import Vault
from core.store.database import UnitOfWork
from schemas.bank_messages import KeptMessage, MessageFate, MessagesAsked, MessageToKeep

_PAGE: Final = 50
_PAGE_BYTES: Final = 2_000_000
# One at a time for an account: two that find the bank's numbers begun anew begin one series and not two.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('fleet.messages:' || $1::text, 0))"
_SERIES: Final = """
SELECT coalesce(max(series), 1) FROM fleet.rail_messages WHERE (rail, provider_account, environment) = ($1, $2, $3)
"""
_KEPT_ONE: Final = """
SELECT ciphertext FROM fleet.rail_messages
WHERE (rail, provider_account, environment, series, number) = ($1, $2, $3, $4, $5)
"""
_INSERT: Final = """
INSERT INTO fleet.rail_messages (rail, provider_account, environment, number, series, ciphertext)
VALUES ($1, $2, $3, $4, $5, $6)
"""
# A page is bounded by what its messages weigh; one that is heavier comes alone.
_KEPT: Final = f"""
SELECT number, ciphertext FROM (
    SELECT number, ciphertext, sum(octet_length(ciphertext)) OVER (ORDER BY number) AS bytes FROM (
        SELECT number, ciphertext FROM fleet.rail_messages
        WHERE rail = $1 AND provider_account = $2 AND environment = $3 AND number >= $4 AND series = ({_SERIES})
        ORDER BY number LIMIT $5) page
    ) weighed
WHERE bytes <= $6 OR bytes = octet_length(ciphertext) ORDER BY number
"""  # noqa: S608 - constants


class MessageStore:
    """Messages by rail, account and number."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def keep(self, uow: UnitOfWork, rail: str, message: MessageToKeep) -> MessageFate:
        """Keep a message. Where another is kept under its number all that is kept of the account is void from now on.

        What is void is never used and never lost; the message is the first of a new series then.
        """
        account = (rail, message.provider_account, message.environment)
        place = _place(*account, message.number)
        await uow.connection.execute(_LOCK, ":".join(account))
        series = await uow.connection.fetchval(_SERIES, *account)
        fate, kept = MessageFate.STORED, await uow.connection.fetchval(_KEPT_ONE, *account, series, message.number)
        if kept is not None:
            if self._vault.open_bytes(kept, bound_to=place) == message.body:
                return MessageFate.SAME
            fate, series = MessageFate.OTHER, series + 1
        sealed = self._vault.seal_bytes(message.body, bound_to=place)
        await uow.connection.execute(_INSERT, *account, message.number, series, sealed)
        return fate

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
