"""Keep the register of mandates: what was signed, who may draw on it, and its end."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import orjson

from core.domain.context import Context
from core.domain.mandates import Mandate
from core.services.access.keys import Caller
from core.services.cursors import decode_cursor, encode_cursor, malformed_cursor
from core.services.on_call.audit import Act, Journal
from core.services.payments.cancel import CancelPorts, cancel
from core.services.payments.mandates import LockPorts, bound_to, debtor_of, is_mandate_id
from core.services.problems import Refusal
from core.services.terms.routes import mask_payee
from core.services.wallets.wallets import Wallet
from schemas.mandates import MandateDebit, MandateDetail, MandatePage, MandateRequest, MandateView
from schemas.operations import OperationType


class _Wallets(Protocol):
    async def find_wallets(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, Wallet]: ...


class MandatePorts(LockPorts, CancelPorts, Protocol):
    """What keeping mandates works with."""

    @property
    def wallets(self) -> _Wallets: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...


async def register_mandate(ports: MandatePorts, caller: Caller, request: MandateRequest) -> MandateDetail:
    """Keep a mandate; the same one again is returned as it stands.

    Raises Refusal: operation_not_permitted, account_not_permitted, wallet_not_found, mandate_signed_ahead,
    mandate_exists.
    """
    caller.require_operation(OperationType.DIRECT_DEBIT)
    caller.require_account(request.wallet_id)
    # No bank's day is further ahead than this: the bank's own calendar is asked with each debit.
    if (request.signed_on - datetime.now(UTC).date()).days > 1:
        raise Refusal("mandate_signed_ahead", "the day of signature has not come", field="signed_on")
    debtor = orjson.dumps([request.debtor_account, request.debtor_name])
    async with ports.unit_of_work(caller.context()) as uow:
        wallet = (await ports.wallets.find_wallets(uow, [request.wallet_id])).get(request.wallet_id)
        if wallet is None:
            raise Refusal("wallet_not_found", "create the wallet first: POST /v1/wallets", field="wallet_id")
        mandate = Mandate(
            caller.tenant_id,
            request.mandate_id,
            request.wallet_id,
            request.kind,
            request.signed_on,
            request.valid_from or request.signed_on,
            request.valid_until,
            request.max_amount_minor,
            ports.vault.seal_bytes(debtor, bound_to=bound_to(caller.tenant_id, request.mandate_id)),
            mask_payee(request.debtor_account),
            str(uow.context.actor),
            datetime.now(UTC),
        )
        if await ports.mandates.insert(uow, mandate):
            await _note(uow, ports, caller, "mandate_registered", request.mandate_id, {"wallet_id": request.wallet_id})
        found = await ports.mandates.find(uow, request.mandate_id)
        if found is None:
            raise Refusal("internal", "the mandate was not kept")
        kept, debits = found
        if kept.terms != mandate.terms or debtor_of(ports.vault, kept) != (
            request.debtor_account,
            request.debtor_name,
        ):
            text = "another mandate has this id: an id is never used again"
            raise Refusal("mandate_exists", text, field="mandate_id")
        return _detail(kept, debits)


async def show_mandate(ports: MandatePorts, caller: Caller, mandate_id: str) -> MandateDetail:
    """Return a mandate and its newest debits. Raises Refusal: operation_not_permitted, not_found."""
    caller.require_operation(OperationType.DIRECT_DEBIT)
    async with ports.unit_of_work(caller.context()) as uow:
        return _detail(*await _visible(uow, ports, caller, mandate_id))


async def list_mandates(
    ports: MandatePorts, caller: Caller, wallet_id: UUID | None, cursor: str | None, limit: int
) -> MandatePage:
    """Return a page of mandates, those of wallets that the key covers.

    Raises Refusal: operation_not_permitted, account_not_permitted, cursor_malformed.
    """
    caller.require_operation(OperationType.DIRECT_DEBIT)
    if wallet_id is not None:
        caller.require_account(wallet_id)
    covered = None if caller.accounts is None else list(caller.accounts)
    wallets = covered if wallet_id is None else [wallet_id]
    after = "" if cursor is None else decode_cursor(cursor, 1)[0]
    if cursor is not None and not is_mandate_id(after):
        raise malformed_cursor()
    async with ports.unit_of_work(caller.context()) as uow:
        found = await ports.mandates.page(uow, wallets, after, limit + 1)
    more = encode_cursor(found[limit - 1].mandate_id) if len(found) > limit else None
    return MandatePage(items=[MandateView(**_fields(each)) for each in found[:limit]], next_cursor=more)


async def cancel_mandate(ports: MandatePorts, caller: Caller, mandate_id: str, reason: str) -> MandateDetail:
    """Let nothing more be pulled under a mandate; its debits that provably were not sent end CANCELLED.

    What was sent goes on, and its state says so. A repeat is harmless, and ends what the first could not.
    Raises Refusal: operation_not_permitted, not_found.
    """
    caller.require_operation(OperationType.DIRECT_DEBIT)
    async with ports.unit_of_work(caller.context()) as uow:
        await _visible(uow, ports, caller, mandate_id)
        # Whoever asks for a debit at the same time came before this lock, or finds the mandate cancelled.
        locked, _ = await ports.mandates.lock(uow, [mandate_id])
        if locked[mandate_id].cancelled_at is None:
            await ports.mandates.cancel(uow, mandate_id)
            await _note(uow, ports, caller, "mandate_cancelled", mandate_id, {"reason": reason})
    async with ports.unit_of_work(caller.context()) as uow:
        open_debits = await ports.mandates.open_debits(uow, mandate_id)
    for intent_id in open_debits:
        with suppress(Refusal):
            await cancel(ports, caller, intent_id)
    return await show_mandate(ports, caller, mandate_id)


async def _visible(
    uow: Any, ports: MandatePorts, caller: Caller, mandate_id: str
) -> tuple[Mandate, list[MandateDebit]]:
    # What is no id is asked of nobody: the database takes no text with U+0000.
    found = await ports.mandates.find(uow, mandate_id) if is_mandate_id(mandate_id) else None
    if found is None or (caller.accounts is not None and found[0].wallet_id not in caller.accounts):
        raise Refusal("not_found", "there is no such mandate")
    return found


async def _note(
    uow: Any, ports: MandatePorts, caller: Caller, action: str, mandate_id: str, data: Mapping[str, Any]
) -> None:
    act = Act(caller.tenant_id, str(uow.context.actor), action, f"mandate:{mandate_id}", data)
    await ports.journal.append(uow, [act])


def _fields(mandate: Mandate) -> dict[str, Any]:
    names = ("state", *MandateView.model_fields)
    return {name: getattr(mandate, name) for name in names}


def _detail(mandate: Mandate, debits: Sequence[MandateDebit]) -> MandateDetail:
    return MandateDetail(**_fields(mandate), debits=list(debits))
