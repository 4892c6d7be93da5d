"""Names that stand twice in one object of a JSON text: readers would not agree on which value is meant."""

import json
from collections import Counter
from typing import Any, Final


class _NamedTwiceError(Exception):
    """An object has two members of one name."""


def _names_once(members: list[tuple[str, Any]]) -> None:
    if len(dict(members)) != len(members):
        counted = Counter(name for name, _ in members)
        raise _NamedTwiceError(next(name for name, count in counted.items() if count > 1))


# Some microseconds a payment: what is built is thrown away as it is read.
_READ_NAMES: Final = json.JSONDecoder(object_pairs_hook=_names_once, parse_int=len, parse_float=len).decode


def named_twice(text: str | bytes) -> str | None:
    """Return the first name that some object of the text has twice; None also for what is no JSON up to there.

    Whoever reads the text itself says so, or that it is too deep.
    """
    try:
        _READ_NAMES(text if isinstance(text, str) else text.decode())
    except _NamedTwiceError as twice:
        return str(twice)
    except (ValueError, RecursionError):
        return None
    return None
