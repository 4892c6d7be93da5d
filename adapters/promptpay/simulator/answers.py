"""How the simulator reads requests."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from adapters.promptpay.simulator.service import refusal
from adapters.testkit.serving import Answer

Model = TypeVar("Model", bound=BaseModel)


def parsed_body(model: type[Model], body: bytes) -> Model | Answer:
    """Return the request, or the refusal of what is none."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        return refusal(422, "field_invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
