"""What stands below a field of the contract reaches the documents, without being read at every start."""

from typing import Annotated

from pydantic import Field

from schemas.base import Contract


class Parent(Contract):
    """A message."""

    kept: int
    """Said by the parent."""
    retold: int
    """Said by the parent, too."""
    silenced: int
    """Not said by the child."""


class Child(Parent):
    """A message that inherits."""

    retold: int
    """Said by the child."""
    silenced: int
    renamed: int = Field(alias="other")
    """Said under its other name."""
    said: Annotated[int, Field(description="Said by itself.")]
    """Not heard."""
    inner: Parent
    """Said beside
    a reference."""


def test_a_field_is_described_by_what_stands_below_it() -> None:
    described = Child.model_json_schema()["properties"]
    assert {name: field.get("description") for name, field in described.items()} == {
        "kept": "Said by the parent.",
        "retold": "Said by the child.",
        "silenced": None,
        "other": "Said under its other name.",
        "said": "Said by itself.",
        "inner": "Said beside\na reference.",
    }


def test_a_class_within_a_function_is_described_as_well() -> None:
    class Local(Contract):
        only: int
        """Said within."""

    assert Local.model_json_schema()["properties"]["only"]["description"] == "Said within."
