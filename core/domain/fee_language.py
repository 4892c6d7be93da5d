"""The language of fee rules: CEL, over a closed list of variables and functions. Pure.

CEL's own checks come too late or not at all (a library evaluates what it is given), so an expression is read twice
before it is kept: by CEL for its syntax, and by us, sign by sign, for whether it uses only what is offered.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import cel

VARIABLES: Final = {
    "amount_minor": "the payment's amount, an integer of minor units",
    "currency": "its currency, such as 'THB'",
    "operation": "its operation, such as 'PAYOUT'",
    "tier": "the wallet owner's tier; '' where none is known",
    "channel": "where the payment came from; '' where none is known",
    "at": "the moment of pricing, a timestamp",
    "hour": "the hour of that moment, 0 to 23, in the tenant's business timezone",
    "weekday": "its day of the week, 1 (Monday) to 7 (Sunday), in the same timezone",
}
"""Every variable of a fee expression; there are no others."""
FUNCTIONS: Final = ("size", "startsWith", "endsWith", "contains", "timestamp")
"""Every function of a fee expression; there are no others."""
LOOPS: Final = frozenset(
    {"all", "exists", "exists_one", "existsOne", "map", "filter", "transformList", "transformMap", "transformMapEntry"}
)
_WORDS: Final = frozenset({"true", "false", "in"})
_POSITION: Final = re.compile(r"<input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")
_TOO_DEEP: Final = re.compile(r"Recursion limit|Incomplete `")
_SIGNS: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      | (?P<bytes>[rR]?[bB][rR]?(?=["']))
      | (?P<text>[rR]?(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
      | (?P<fraction>\d+\.\d+(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
      | (?P<unsigned>(?:0[xX][0-9a-fA-F]+|\d+)[uU])
      | (?P<integer>0[xX][0-9a-fA-F]+|\d+)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_NOT_OFFERED: Final = {
    "fraction": "fractions: money is whole minor units; write a rate as basis points or divide integers",
    "unsigned": "unsigned numbers: leave the u out",
    "bytes": "bytes",
}


class FeeError(ValueError):
    """A rule that cannot be kept, or a payment that cannot be priced; `code` is stable, the text names the remedy."""

    def __init__(self, code: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.field = field


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression: what it reads, and the literals it compares with."""

    text: str
    field: str
    """The field of the rule that it is written in."""
    program: "cel.Program"
    variables: frozenset[str]
    integers: frozenset[int]
    texts: frozenset[str]
    is_true: bool
    """Whether it is the word `true`, which needs no evaluation."""

    def value(self, context: "cel.Context") -> Any:
        """Evaluate. Raises FeeError `fee_rule_fails` where CEL finds no value."""
        try:
            return self.program.execute(context)
        except (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError) as error:
            reason = " ".join(str(error).split(". ")[0].split())
            raise FeeError("fee_rule_fails", f"{self.text!r} has no value here: {reason}", self.field) from error


def compile_expression(text: str, field: str) -> Expression:
    """Compile an expression that uses only what is offered; `field` is where the rule has it.

    Raises FeeError, in this order: fee_syntax (with line and column), fee_expression_forbidden, fee_name_unknown.
    """
    import cel  # it brings a prompt and its terminal along, and most processes meet no rule

    try:
        program = cel.compile(text)
    except ValueError as error:
        raise FeeError("fee_syntax", _place(str(error)), field) from error
    try:
        names, integers, texts = _read(text)
    except FeeError as error:
        error.field = field
        raise
    return Expression(text, field, program, names, integers, texts, text.strip() == "true")


def _place(told: str) -> str:
    found = _POSITION.search(told)
    if found is None:
        return told[:200]
    # What is nested too deeply is told in words of the parser's own source.
    says = "nested too deeply: write it flatter" if _TOO_DEEP.search(found[3]) else found[3][:200]
    return f"line {found[1]}, column {found[2]}: {says}"


def _read(text: str) -> tuple[frozenset[str], frozenset[int], frozenset[str]]:
    """Return variables, integers and texts. Raises FeeError for the first sign that is not offered."""
    import cel

    signs = [sign for sign in _SIGNS.finditer(text) if sign.lastgroup != "space"]
    variables: set[str] = set()
    integers: set[int] = set()
    texts: set[str] = set()
    for place, sign in enumerate(signs):
        kind, word = sign.lastgroup or "", sign.group()
        before = signs[place - 1].group() if place else ""
        after = signs[place + 1].group() if place + 1 < len(signs) else ""
        if kind in _NOT_OFFERED:
            raise _refused(text, sign, "fee_expression_forbidden", f"no {_NOT_OFFERED[kind]}")
        if kind == "integer":
            integers.add(int(word, 16 if word[:2] in ("0x", "0X") else 10))
        elif kind == "text":
            texts.add(cel.compile(word).execute())
        elif kind == "name" and word not in _WORDS:
            variables |= _checked_name(text, sign, before, after)
        elif word == "{":
            raise _refused(text, sign, "fee_expression_forbidden", "no maps and no messages")
    return frozenset(variables), frozenset(integers), frozenset(texts)


def _checked_name(text: str, sign: "re.Match[str]", before: str, after: str) -> set[str]:
    """Return the variable that a name is; nothing for a function. Raises FeeError for any other name."""
    word = sign.group()
    if after == "(":
        if word in LOOPS:
            raise _refused(text, sign, "fee_expression_forbidden", f"no loops: {word} is one")
        if word not in FUNCTIONS:
            raise _refused(text, sign, "fee_name_unknown", f"no function {word}: use {', '.join(FUNCTIONS)}")
        return set()
    if before == "." or word not in VARIABLES:
        raise _refused(text, sign, "fee_name_unknown", f"no variable {word}: use {', '.join(VARIABLES)}")
    return {word}


def _refused(text: str, sign: "re.Match[str]", code: str, why: str) -> FeeError:
    line = text.count("\n", 0, sign.start()) + 1
    column = sign.start() - text.rfind("\n", 0, sign.start())
    return FeeError(code, f"line {line}, column {column}: {why}")
