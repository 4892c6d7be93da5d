"""What is wrong with a request is said in words: each form that a request's fields may have, each kind of fault."""

from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.base import AnyMoment, Day
from schemas.faults import first_fault
from schemas.money import MAX_AMOUNT_MINOR


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")
    wallet_id: UUID | None = None
    amount_minor: Annotated[int, Field(strict=True, gt=0, le=MAX_AMOUNT_MINOR)] = 1
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "THB"
    shape: Annotated[str, Field(pattern=r"^q$")] = "q"
    at: AnyMoment | None = None
    day: Day | None = None
    tags: Annotated[list[str], Field(min_length=1, max_length=2)] = ["a"]
    note: Annotated[str, Field(min_length=1, max_length=3)] = "n"
    sure: bool = False


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"wallet_id": "0812345678"}, "wallet_id: is no id: an id is a UUID, such as"),
        ({"currency": "baht"}, "currency: is no currency: write the three capital letters"),
        ({"shape": "0812345678"}, "shape: is not written as it has to be, which is ^q$"),
        ({"amount_minor": 1.5}, "amount_minor: is no whole number"),
        ({"amount_minor": -1}, "amount_minor: has to be more than 0"),
        ({"amount_minor": 10**16}, f"amount_minor: may be at most {MAX_AMOUNT_MINOR}"),
        ({"at": "2026-03-01T09:30:00"}, "at: is no time: write it with its zone"),
        ({"at": "20260301"}, "at: is no time: write it with its zone"),
        ({"at": 1_772_357_400}, "at: is no time: write it with its zone"),
        ({"at": "1772357400"}, "at: is no time: write it with its zone"),
        ({"day": "20304000"}, "day: is no day: write it as 2026-03-01"),
        ({"day": "20260301"}, "day: is no day: write it as 2026-03-01"),
        ({"tags": []}, "tags: has to have at least 1 item"),
        ({"tags": ["a", "b", "c"]}, "tags: may have at most 2 items"),
        ({"note": ""}, "note: has to have at least 1 character"),
        ({"sure": "perhaps"}, "sure: has to be true or false"),
        ({"amuont_minor": 1}, "amuont_minor: is no field here"),
    ],
)
def test_a_fault_is_a_sentence_that_names_the_field_and_never_the_value(sent: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Asked.model_validate(sent)
    fault = first_fault(caught.value)
    said = f"{fault.field}: {fault.words}"
    assert said.startswith(told)
    assert "0812345678" not in said
    assert not said.endswith(("1 items", "1 characters"))
