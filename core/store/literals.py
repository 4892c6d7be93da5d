"""Values written out in SQL, for the few statements that cannot have parameters: those that travel with a COMMIT."""

import re
from collections.abc import Iterable
from typing import Final

_INSIDE: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "'": "''"})
_MEANS_SOMETHING: Final = re.compile(r"[\\\"']")


def text(value: object) -> str:
    """Return the value's text as a literal, whatever it holds; the server gives it the type that is asked for."""
    return "'" + str(value).replace("'", "''") + "'"


def array(values: Iterable[object]) -> str:
    """Return the values' texts as the literal of an array."""
    texts = [str(value) for value in values]
    # Ids and numbers, nearly always: to look through them all at once costs a fifth of changing none in each.
    if _MEANS_SOMETHING.search("".join(texts)):
        texts = [each.translate(_INSIDE) for each in texts]
    quoted = '"' + '","'.join(texts) + '"' if texts else ""
    return "'{" + quoted + "}'"
