"""Confirming beforehand: whether a lookup found what the client said that it would agree to."""

from typing import Any, Protocol

from core.domain.intents import IntentRow
from schemas.results import Result


class Evidence(Protocol):
    """Names that the streams do not carry."""

    async def payee_name(self, uow: Any, evidence_id: Any) -> str | None: ...


class NamedPorts(Protocol):
    """What the comparison works with."""

    @property
    def evidence(self) -> Evidence: ...


async def auto_confirm_holds(uow: Any, ports: NamedPorts, intent: IntentRow, result: Result) -> bool:
    """Return whether what the lookup found is what the client agreed to beforehand."""
    wanted = intent.auto_confirm
    if wanted is None or result.lookup is None:
        return False
    if intent.fees_on_top_minor + result.lookup.fee_minor > wanted["max_fee_minor"]:
        return False
    if wanted.get("payee_name") is None:
        return True
    if result.evidence_id is None:
        return False
    name = await ports.evidence.payee_name(uow, result.evidence_id)
    return name is not None and _comparable(name) == _comparable(wanted["payee_name"])


def _comparable(name: str) -> str:
    return " ".join(name.split()).casefold()
