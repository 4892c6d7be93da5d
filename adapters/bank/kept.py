"""The bank's messages by way of the core: what any process has read is not asked of the bank again after a start.

The core is a help here and never a need: what it does not have, or cannot say, is read from the bank. A bank that
begins its numbers anew sends another first message than was kept: each page is compared with the bank at both its ends,
and what differs voids all that the core keeps of the account.
"""

import logging
from typing import Final

from adapters.bank.mailbox import Messages
from adapters.runtime.core_client import CoreClient, CoreRefusedError, CoreUnavailableError
from schemas.bank_messages import MessageFate, MessagesAsked, MessagesKept, MessageStored, MessageToKeep

log = logging.getLogger(__name__)

_PATH: Final = "/internal/v1/messages"


class KeptMessages:
    """Follows one account's messages. Not safe with several askers at once: the mailbox asks for one at a time."""

    def __init__(self, bank: Messages, core: CoreClient, provider_account: str, environment: str) -> None:
        self._bank, self._core = bank, core
        self._account, self._environment = provider_account, environment
        self._page: dict[int, bytes] = {}
        self._may_have_more = True

    async def message(self, number: int) -> bytes | None:
        """Return one message, None where there is none yet. Raises the bank client's errors."""
        if self._may_have_more and not any(kept >= number for kept in self._page):
            await self._look(number)
        body = self._page.pop(number, None)
        if body is not None:
            return body
        body = await self._bank.message(number)
        if body is not None:
            await self._keep(number, body)
        return body

    async def _look(self, first: int) -> None:
        """Take the next page from the core, unless its first or last message is another than the bank's."""
        asked = MessagesAsked(provider_account=self._account, environment=self._environment, first=first)
        try:
            answer = await self._core.ask(f"{_PATH}/kept", asked.model_dump_json().encode())
            page = {each.number: each.body for each in MessagesKept.model_validate_json(answer).items}
        except (CoreUnavailableError, CoreRefusedError) as error:
            log.warning("messages are read from the bank: %s", error)
            page = {}
        self._page, self._may_have_more = page, bool(page)
        for number in sorted({min(page), max(page)} if page else ()):
            body = await self._bank.message(number)
            if body != page[number]:
                self._page, self._may_have_more = {}, False
                log.error("message %d of the bank is another than was kept: all are read from the bank", number)
                if body is not None:
                    await self._keep(number, body)
                return

    async def _keep(self, number: int, body: bytes) -> None:
        message = MessageToKeep.model_construct(
            provider_account=self._account, environment=self._environment, number=number, body=body
        )
        try:
            answer = await self._core.ask(_PATH, message.model_dump_json().encode())
            if MessageStored.model_validate_json(answer).fate is MessageFate.OTHER:
                # Nothing that was kept before says what the bank's numbers mean now.
                log.error("the bank numbers anew: what was kept before its message %d is used no more", number)
                self._page, self._may_have_more = {}, False
        except (CoreUnavailableError, CoreRefusedError) as error:
            log.warning("message %d is not kept, and will be read again after a start: %s", number, error)
