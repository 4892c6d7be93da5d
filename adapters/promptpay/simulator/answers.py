"""How the simulator reads requests and refuses them."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from adapters.testkit.serving import Answer

Model = TypeVar("Model", bound=BaseModel)


def parsed_body(model: type[Model], body: bytes) -> Model | Answer:
    """Return the request, or the refusal of what is none."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        return refusal(422, "field_invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


def refusal(status: int, code: str, message: str, known_status: str | None = None) -> Answer:
    """Return an error answer."""
    body: dict[str, object] = {"code": code, "message": message}
    return Answer(status, body if known_status is None else {**body, "status": known_status})
