"""Evidence on its way to the core: batches that fit, and one bad piece that harms no other."""

import asyncio
from collections.abc import Sequence

from adapters.runtime.core_client import CoreRefusedError, CoreUnavailableError
from adapters.runtime.evidence import EvidenceKeeper
from core.api.requests import BATCH_BODY_MAX_BYTES
from schemas.ids import mint_id
from schemas.rails import EvidenceBatch, EvidenceItem


class Core:
    """Bounds a body as the internal listener does, and takes nothing beside a piece of a kind that it does not know."""

    def __init__(self, away: int = 0) -> None:
        self.kept: list[EvidenceItem] = []
        self._away = away

    async def post_evidence(self, items: Sequence[EvidenceItem]) -> None:
        await asyncio.sleep(0)
        if self._away:
            self._away -= 1
            raise CoreUnavailableError("away")
        if len(EvidenceBatch(items=list(items)).model_dump_json().encode()) > BATCH_BODY_MAX_BYTES:
            raise CoreRefusedError(413, "body_too_large")
        if any(item.kind == "unknown" for item in items):
            raise CoreRefusedError(422, "invalid_request")
        self.kept += items


def piece(kind: str = "submit_answer", raw: str = "") -> EvidenceItem:
    return EvidenceItem(id=mint_id(1_800_000_000_000), kind=kind, raw=raw)


async def kept_by(core: Core, items: Sequence[EvidenceItem]) -> list[bool]:
    keeper = EvidenceKeeper(core, "test", within_s=10)
    keeper.start()
    kept = await asyncio.gather(*map(keeper.keep, items))
    await keeper.stop(1)
    return kept


async def test_many_long_answers_of_three_bytes_a_letter_are_all_kept() -> None:
    core = Core()
    items = [piece(raw="\u0e01" * 8_000) for _ in range(400)] + [piece(raw="\u0e01" * 64_000)]
    assert all(await kept_by(core, items))
    assert {item.id for item in core.kept} == {item.id for item in items}


async def test_a_piece_that_the_core_refuses_takes_none_of_its_neighbours_along() -> None:
    core = Core(away=1)
    items = [piece("unknown" if number == 61 else "submit_answer") for number in range(100)]
    assert await kept_by(core, items) == [item.kind != "unknown" for item in items]
    assert {item.id for item in core.kept} == {item.id for item in items} - {items[61].id}
