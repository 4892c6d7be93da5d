"""The base of every contract model: frozen, closed to unknown fields where we write, strict about types."""

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """A message of our own: unknown fields are refused, so that a typing error never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants", use_attribute_docstrings=True)
