"""How the simulator reads requests and writes answers."""

from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from adapters.promptpay.simulator.service import Answer, refusal

Model = TypeVar("Model", bound=BaseModel)


def respond(answer: Answer) -> Response:
    """Return the HTTP response of an answer."""
    return Response(orjson.dumps(answer.body), answer.status, media_type="application/json")


def parsed_body(model: type[Model], body: bytes) -> Model | Answer:
    """Return the request, or the refusal of what is none."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        return refusal(422, "field_invalid", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
