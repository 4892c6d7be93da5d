"""Values written out in SQL, for the few statements that cannot have parameters: those that travel with a COMMIT."""

from collections.abc import Iterable

_INSIDE = str.maketrans({"\\": "\\\\", '"': '\\"', "'": "''"})


def text(value: object) -> str:
    """Return the value's text as a literal, whatever it holds; the server gives it the type that is asked for."""
    return "'" + str(value).replace("'", "''") + "'"


def array(values: Iterable[object]) -> str:
    """Return the values' texts as the literal of an array."""
    return "'{" + ",".join([f'"{str(value).translate(_INSIDE)}"' for value in values]) + "}'"
