"""What is wrong with a value, in words for whoever sent it: what the field takes, and never the value itself."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from schemas.api import PAYEE_TAGS

_PATTERNS: Final = {
    r"^[A-Z]{3}$": "is no currency: write the three capital letters of ISO 4217, such as THB",
    r"^[a-z][a-z0-9_]{1,30}$": "is no such name: 2 to 31 small letters, digits and _, a letter first",
    r"^[\x21-\x7e]+$": "has characters that it may not have: visible ASCII without spaces",
    r"^[\x20-\x7e]*$": "has characters that it may not have: ASCII letters, digits, signs and spaces",
    r"^[!-~]+$": "has characters that it may not have: visible ASCII without spaces",
    r"^[A-Za-z0-9._-]*$": "has characters that it may not have: letters, digits, '.', '_' and '-'",
    r"^[a-z0-9][a-z0-9._-]*$": "is no such name: small letters, digits, '.', '_' and '-', a letter or digit first",
    r"^[0-9]{1,12}(\.[0-9]{1,12})?$": 'is no rate: write a decimal number in quotes, such as "35.27"',
    r"^[A-Z0-9-]{1,35}$": "is no such id: 1 to 35 capital letters, digits and '-'",
    r"^[0-9]{3}-[0-9]{10,15}$": "is no account: the bank's three digits, '-' and 10 to 15 digits",
    r"^[^;\s]([^;\x00-\x1f]*[^;\s])?$": "is empty, or has a character that it may not have, such as ;",
    r"^[^\x00]*$": "may not have the character U+0000",
    r"^[^\x00]*\S[^\x00]*$": "is empty: say why, in words",
}
"""By the pattern of the contract; what is not here shows its pattern."""

_ID: Final = "is no id: an id is a UUID, such as 0192f0c1-7a3e-7c55-9d4e-2f6b8a10c3d7"
_WHOLE: Final = "is no whole number: write digits alone, without quotes, point or exponent"
_TIME: Final = "is no time: write it with its zone, such as 2026-03-01T09:30:00Z"
_WORDS: Final = {
    "missing": "is missing: it has to be sent",
    "extra_forbidden": "is no field here: check how it is spelt, or leave it out",
    "uuid_parsing": _ID,
    "uuid_type": _ID,
    "uuid_version": _ID,
    "int_type": _WHOLE,
    "int_parsing": "is no whole number: write digits alone",
    "int_parsing_size": "is too large a number",
    "int_from_float": _WHOLE,
    "float_type": "is no number",
    "float_parsing": "is no number: write digits, with a point where it has decimals",
    "finite_number": "has to be a finite number",
    "bool_type": "has to be true or false, without quotes",
    "bool_parsing": "has to be true or false",
    "string_type": "has to be text, in quotes",
    "list_type": "has to be a list, in brackets",
    "frozen_set_type": "has to be a list, in brackets",
    "tuple_type": "has to be a list, in brackets",
    "dict_type": "has to be an object, in braces",
    "model_type": "has to be an object, in braces",
    "model_attributes_type": "has to be an object, in braces",
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": _TIME,
    "date_type": "is no day: write it as 2026-03-01",
    "date_parsing": "is no day: write it as 2026-03-01",
    "date_from_datetime_parsing": "is no day: write it as 2026-03-01",
    "string_too_short": "has to have at least {min_length} characters",
    "string_too_long": "may have at most {max_length} characters",
    "too_short": "has to have at least {min_length} items",
    "too_long": "may have at most {max_length} items",
    "greater_than": "has to be more than {gt}",
    "greater_than_equal": "has to be at least {ge}",
    "less_than": "has to be less than {lt}",
    "less_than_equal": "may be at most {le}",
    "literal_error": "has to be {expected}",
    "enum": "has to be {expected}",
}
"""By pydantic's kind of fault; what is not here keeps pydantic's words."""


class Fault(NamedTuple):
    """The first thing that is wrong: in which field ('' is the whole), and what it takes instead."""

    kind: str
    field: str
    words: str


def first_fault(error: ValidationError) -> Fault:
    """Return what is wrong first. The value at fault stays out of it: it may be a payee."""
    return fault_of(error.errors(include_url=False, include_input=False)[0])


def fault_of(told: Mapping[str, Any]) -> Fault:
    """Return what one of pydantic's faults says."""
    field = ".".join(str(part) for part in told["loc"] if part not in PAYEE_TAGS)
    return Fault(told["type"], field, _words(told["type"], told["msg"], told.get("ctx", {})))


def _words(kind: str, said: str, context: Mapping[str, Any]) -> str:
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        return _PATTERNS.get(pattern, f"is not written as it has to be, which is {pattern}")
    if kind == "value_error":
        return said.removeprefix("Value error, ")
    words = _WORDS.get(kind)
    return said if words is None else _in_the_singular(words.format(**context))


def _in_the_singular(words: str) -> str:
    return words.removesuffix("s") if words.endswith((" 1 characters", " 1 items")) else words
