"""The base of every contract model: frozen, closed to unknown fields where we write, strict about types."""

from datetime import UTC, date, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
)
from pydantic_core import CoreSchema, PydanticCustomError

from schemas.docstrings import attribute_docstrings


class Contract(BaseModel):
    """A message of our own: unknown fields are refused, so that a typing error never passes silently.

    Every process of the fleet imports these models and uses few of them: a model is built when it is first used, and
    what stands below its fields is read when a document is made of it, not at every start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants", defer_build=True)

    @classmethod
    def of_ours(cls, **every: Any) -> Self:
        """Return the model of values that were checked before, each field given: nothing is checked or filled in.

        For what each payment makes: pydantic's model_construct asks each field for its alias and its default, and takes
        twice as long.
        """
        made = cls.__new__(cls)
        object.__setattr__(made, "__dict__", every)
        object.__setattr__(made, "__pydantic_fields_set__", set(every))
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        return made

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe each field by the docstring below it, unless it says itself what it is."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in attribute_docstrings(cls).items():
            field = cls.model_fields.get(name)
            if field is not None and field.description is None:
                properties.get(field.alias or name, {})["description"] = text
        return schema


def _is_written_out(told: Any) -> bool:
    return isinstance(told, date) or (isinstance(told, str) and told[4:5] == "-")


def _written_moment(told: Any) -> Any:
    if not _is_written_out(told):
        raise PydanticCustomError("datetime_parsing", "is no time")
    return told


def _written_day(told: Any) -> Any:
    if not _is_written_out(told):
        raise PydanticCustomError("date_parsing", "is no day")
    return told


def _on_the_calendar(moment: datetime) -> datetime:
    try:
        moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("in UTC it lies outside of the years 1 to 9999") from error
    return moment


MOMENT_AS_WRITTEN = BeforeValidator(_written_moment)
"""Refuses what ISO 8601 does not write: a bare number, such as 20260301, would count as seconds since 1970."""
DAY_AS_WRITTEN = BeforeValidator(_written_day)
"""The same for a day, which needs its dashes."""
Day = Annotated[date, DAY_AS_WRITTEN]
AnyMoment = Annotated[AwareDatetime, MOMENT_AS_WRITTEN, AfterValidator(_on_the_calendar)]
"""Any moment that there is in UTC, and so one that can be stored, or looked before and behind."""
Flag = Annotated[bool, Field(strict=True)]
"""True or false and nothing like it: of "no", 1 or "off" a reader in another language makes something else."""
