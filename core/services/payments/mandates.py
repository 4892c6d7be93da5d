"""Drawing on mandates: money is pulled under an active one of the register alone, as it was signed."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson

from core.domain.mandates import Mandate
from core.services.problems import Refusal
from core.services.vault_port import Vault
from schemas.api import IntentRequest
from schemas.mandates import (
    MANDATE_PAYEE,
    MandateDebit,
    MandateState,
    SequenceType,
)
from schemas.money import money_text
from schemas.permits import Payee

_NAMED: Final = re.compile(r"([A-Z0-9-]{1,35})(;FNAL)?")
_ID: Final = re.compile(r"[A-Z0-9-]{1,35}")
_FIELD: Final = "payee.value"
_REMEDY: Final = "write the id of a registered mandate, and ;FNAL behind it for its last debit"


class Mandates(Protocol):
    """Where mandates are kept, and what drew on them."""

    async def insert(self, uow: Any, mandate: Mandate) -> bool:
        """Keep a new one; False where its id is taken."""
        ...

    async def lock(self, uow: Any, ids: Sequence[str]) -> tuple[dict[str, Mandate], datetime | None]:
        """Return those that exist, locked in id order until the end, and the moment."""
        ...

    async def find(self, uow: Any, mandate_id: str) -> tuple[Mandate, list[MandateDebit]] | None: ...
    async def page(self, uow: Any, wallets: Sequence[UUID] | None, after: str, limit: int) -> list[Mandate]: ...
    async def cancel(self, uow: Any, mandate_id: str) -> None: ...
    async def open_debits(self, uow: Any, mandate_id: str) -> list[UUID]:
        """Return its debits that have not ended."""
        ...

    async def draw(self, uow: Any, debits: Mapping[UUID, tuple[str, SequenceType]]) -> None:
        """Note under which mandate each intent draws, and as which debit of it."""
        ...


class LockPorts(Protocol):
    """What acceptance looks mandates up with."""

    @property
    def mandates(self) -> Mandates: ...
    @property
    def vault(self) -> Vault: ...


@dataclass(frozen=True, slots=True)
class Drawn:
    """A direct debit's mandate, and as which debit it draws on it."""

    mandate: Mandate
    sequence: SequenceType
    asked_at: datetime

    @property
    def debit(self) -> tuple[str, SequenceType]:
        """The mandate's id, and which debit of it this is."""
        return self.mandate.mandate_id, self.sequence

    def take(self, timezone: str) -> None:
        """Draw on it, for the requests behind this one in a batch to see.

        Raises Refusal `mandate_not_yet_valid` or `mandate_expired` unless the bank's day is one of its days.
        """
        today = self.asked_at.astimezone(ZoneInfo(timezone)).date()
        if today < self.mandate.valid_from:
            text = f"nothing is pulled under this mandate before {self.mandate.valid_from}"
            raise Refusal("mandate_not_yet_valid", text, field=_FIELD)
        if self.mandate.valid_until is not None and today > self.mandate.valid_until:
            text = f"the mandate ended on {self.mandate.valid_until}: have a new one signed"
            raise Refusal("mandate_expired", text, field=_FIELD)
        self.mandate.drawn.add(self.sequence)
        self.mandate.takes += 1


@dataclass(frozen=True, slots=True)
class Signed:
    """The mandates that the requests of a batch name, locked, and who signed each."""

    mandates: Mapping[str, Mandate]
    debtors: Mapping[str, tuple[str, str]]
    now: datetime | None
    asked: Mapping[str, int] = field(default_factory=dict)
    """How many requests of the batch name each."""

    def drawn_in_vain(self, made: Iterable[Drawn | None]) -> bool:
        """Whether a mandate that several requests name was drawn on by one that is not among those `made`."""
        shared = {each: self.mandates[each].takes for each, times in self.asked.items() if times > 1}
        if not any(shared.values()):
            return False
        drawn = Counter(each.mandate.mandate_id for each in made if each is not None)
        return any(takes > drawn[each] for each, takes in shared.items())


_NONE: Final = Signed({}, {}, None)


async def lock_mandates(uow: Any, ports: LockPorts, requests: Sequence[IntentRequest]) -> Signed:
    """Return the mandates that requests name, locked until the end. Costs nothing where none names one."""
    asked = Counter(
        found[1]
        for request in requests
        if (payee := request.named_payee) is not None
        and payee.type == MANDATE_PAYEE
        and (found := _NAMED.fullmatch(payee.value)) is not None
    )
    if not asked:
        return _NONE
    mandates, now = await ports.mandates.lock(uow, sorted(asked))
    debtors = {each.mandate_id: debtor_of(ports.vault, each) for each in mandates.values()}
    return Signed(mandates, debtors, now, {each: times for each, times in asked.items() if each in mandates})


def draw_on(request: IntentRequest, signed: Signed) -> tuple[IntentRequest, Drawn | None]:
    """Return the request with its mandate written out for the rail; as it is where it names none.

    Raises Refusal: mandate_not_found, mandate_wallet_differs, mandate_cancelled, mandate_used,
    mandate_amount_exceeded. No text quotes a debtor.
    """
    payee = request.named_payee
    if payee is None or payee.type != MANDATE_PAYEE:
        return request, None
    named = _NAMED.fullmatch(payee.value)
    mandate = None if named is None else signed.mandates.get(named[1])
    if named is None or mandate is None or signed.now is None:
        raise Refusal("mandate_not_found", f"there is no such mandate: {_REMEDY}", field=_FIELD)
    if mandate.wallet_id != request.wallet_id:
        text = "the mandate was signed for another wallet: name that one"
        raise Refusal("mandate_wallet_differs", text, field="wallet_id")
    if mandate.state is MandateState.CANCELLED:
        raise Refusal("mandate_cancelled", "the mandate was cancelled: have a new one signed", field=_FIELD)
    if mandate.state is MandateState.ENDED:
        raise Refusal("mandate_used", "the mandate's last debit was asked for: have a new one signed", field=_FIELD)
    if mandate.max_amount_minor is not None and request.amount_minor > mandate.max_amount_minor:
        text = (
            f"one debit under this mandate takes {money_text(mandate.max_amount_minor, request.currency)} at the most"
        )
        raise Refusal("mandate_amount_exceeded", text, field="amount_minor")
    sequence = mandate.next_sequence(final=named[2] is not None)
    account, name = signed.debtors[mandate.mandate_id]
    value = f"{mandate.mandate_id};{mandate.signed_on.isoformat()};{sequence};{account};{name}"
    written = request.model_copy(update={"payee": Payee(type=MANDATE_PAYEE, value=value)})
    return written, Drawn(mandate, sequence, signed.now)


def debtor_of(vault: Vault, mandate: Mandate) -> tuple[str, str]:
    """Return account and name of who signed. Raises VaultError."""
    place = bound_to(mandate.tenant_id, mandate.mandate_id)
    account, name = orjson.loads(vault.open_bytes(mandate.debtor, bound_to=place))
    return account, name


def is_mandate_id(text: str) -> bool:
    """Whether this is written as a mandate's id is."""
    return _ID.fullmatch(text) is not None


def bound_to(tenant_id: UUID, mandate_id: str) -> str:
    """Return the place that a sealed debtor opens at, and nowhere else."""
    return f"mandate:{tenant_id}:{mandate_id}"
