"""True and false in what is asked of the core: the two words of JSON, and nothing that is only like them."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from core.api.serve import internal_app
from schemas.base import Contract
from tests.integration.api.conftest import World, payout
from tests.integration.api.test_internal import NeverThrottled

LIKE_THEM = ("yes", "true", "false", "off", "0", "", 1, 0, 1.0, None)


async def test_no_flag_of_a_body_takes_anything_but_true_and_false(world: World) -> None:
    transport = httpx.ASGITransport(internal_app(world.core, NeverThrottled()))
    async with httpx.AsyncClient(transport=transport, base_url="http://core") as internal:
        documents = [(await http.get("/openapi.json")).json() for http in (world.api.http, internal)]
    flags = {flag for document in documents for flag in flags_of(document)}
    assert {("IntentRequest", "requires_monitoring"), ("Capabilities", "callbacks"), ("MappedAmount", "minor")} <= flags
    for model, name in flags:
        field = models()[model].model_fields[name]
        flag: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
        assert [flag.validate_json(word) for word in ("true", "false")] == [True, False]
        for told in LIKE_THEM:
            with pytest.raises(ValidationError, match="bool_type"):
                pytest.fail(f"{model}.{name} takes {told!r} for {flag.validate_python(told)}")


async def test_what_is_only_like_true_is_refused_by_the_name_of_its_field(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    before = await world.contents()
    for told in ("yes", 1):
        refused = await world.api.post("/v1/intents", payout(wallet, requires_monitoring=told), key="flag")
        assert (refused.status_code, refused.json()["field"]) == (422, "requires_monitoring")
        assert "has to be true or false, without quotes" in refused.json()["detail"]
    assert await world.contents() == before


def flags_of(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield model and name of each flag in a body that the document tells of, in what stands inside of it too."""
    parts, waiting, seen = document["components"]["schemas"], [], set()
    for path in document["paths"].values():
        waiting += references([told.get("requestBody") for told in path.values()])
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += references(parts[name])
        for field, told in parts[name].get("properties", {}).items():
            if told.get("type") == "boolean":
                yield name.removesuffix("-Input"), field


def references(told: Any) -> list[str]:
    """Return the names of the parts that something in a document points at."""
    inner = list(told.values()) if isinstance(told, dict) else told if isinstance(told, list) else []
    own = [told["$ref"].rpartition("/")[2]] if isinstance(told, dict) and isinstance(told.get("$ref"), str) else []
    return own + [name for each in inner for name in references(each)]


def models() -> dict[str, type[BaseModel]]:
    """Return every model of the contract by its name."""
    found: list[type[BaseModel]] = [Contract]
    for each in found:
        found += each.__subclasses__()
    return {each.__name__: each for each in found}
