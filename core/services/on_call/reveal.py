"""Personal data in the clear, for one payment and a reason; who looked is in the journal before it is shown."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from core.domain.context import Context
from core.services.access.keys import Caller
from core.services.on_call.audit import Act, Journal, require_reason
from core.services.payments.read_intents import IntentReader, visible
from core.services.problems import Refusal
from core.services.vault_port import Sealed, Vault, VaultError
from schemas.permits import Payee


@dataclass(frozen=True, slots=True)
class Revealed:
    """Who is paid, and what they are told."""

    payee: Payee | None
    message: str


class SubjectKeys(Protocol):
    """Finds the wrapped keys of subjects."""

    async def subject_keys(self, uow: Any, subjects: Sequence[UUID]) -> dict[UUID, bytes | None]: ...


class RevealPorts(Protocol):
    """What revealing works with."""

    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...
    @property
    def intents(self) -> IntentReader: ...
    @property
    def suspense(self) -> SubjectKeys: ...
    @property
    def vault(self) -> Vault: ...
    @property
    def journal(self) -> Journal: ...


async def reveal(ports: RevealPorts, caller: Caller, intent_id: UUID, reason: str) -> Revealed:
    """Return payee and message once the journal says who looked and why.

    Raises Refusal: invalid_request (no reason), not_found (also where the subject was erased).
    """
    require_reason(reason)
    async with ports.unit_of_work(caller.context()) as uow:
        intent = visible(await ports.intents.load_intents(uow, [intent_id]), intent_id, caller)
        if intent.subject_id is None or intent.instruction is None:
            raise Refusal("not_found", "this payment has no personal data")
        keys = await ports.suspense.subject_keys(uow, [intent.subject_id])
        sealed = Sealed(intent.id, intent.subject_id, intent.instruction, keys.get(intent.subject_id))
        try:
            payee, message = ports.vault.open_instructions([sealed])[intent.id]
        except VaultError as error:
            raise Refusal("not_found", "the personal data was erased") from error
        act = Act(intent.tenant_id, caller.context().actor, "revealed", f"intent:{intent.id}", {"reason": reason})
        await ports.journal.append(uow, [act])
    return Revealed(payee, message)
