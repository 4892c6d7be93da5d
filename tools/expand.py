"""Keeps migrations such that the release before them goes on working beside the new one: they expand, and no more.

    python -m tools.expand    exit 1 and one line per finding

What contracts, once no running release needs the old shape, says so: `-- contract: REASON` before the statement.
"""

import re
import sys
from collections.abc import Iterator
from typing import Final

from core.store.migrate import load_migrations

BASE: Final = 47
"""The newest migration of the oldest release that may still run beside this code."""

_TOKEN: Final = re.compile(
    r"(?P<comment>--[^\n]*)|(?P<body>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)|(?P<text>'(?:[^']|'')*')|(?P<end>;)", re.DOTALL
)
_CREATED: Final = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?([\w.]+)")
_DROPPED_CONSTRAINT: Final = re.compile(r"DROP CONSTRAINT (?:IF EXISTS )?(\w+)")
_ADDED_CONSTRAINT: Final = re.compile(r"ADD CONSTRAINT (\w+)")
_RULES: Final = (
    (
        re.compile(r"\bDROP (TABLE|COLUMN|VIEW|SEQUENCE|TYPE|SCHEMA|FUNCTION|PROCEDURE)\b"),
        "drops what old code uses",
    ),
    (re.compile(r"\bRENAME\b"), "renames what old code uses"),
    (re.compile(r"\bALTER (COLUMN )?\w+ (SET DATA )?TYPE\b"), "changes a type under old code"),
    (re.compile(r"\bSET NOT NULL\b"), "refuses the NULL that old code writes"),
    (re.compile(r"\bREVOKE\b.*\bFROM\b.*\bFLEET_(APP|WORKER)\b"), "takes a right from old code"),
    (re.compile(r"^(TRUNCATE|DELETE FROM)\b"), "loses rows that old code may read"),
)


def statements(sql: str) -> Iterator[tuple[str, str]]:
    """Yield each statement without comments, texts and bodies, in upper case, and the comments before and in it."""
    bare, comments, at = "", "", 0
    for found in _TOKEN.finditer(sql):
        bare += sql[at : found.start()]
        at = found.end()
        if found["comment"]:
            comments += found["comment"] + "\n"
        elif found["end"]:
            yield " ".join(bare.split()).upper(), comments
            bare, comments = "", ""
        else:
            bare += "''"
    if bare.strip():
        yield " ".join(bare.split()).upper(), comments


def findings(name: str, sql: str) -> Iterator[str]:
    """Yield what a release before this migration could not live with."""
    all_of_it = list(statements(sql))
    created = {table for text, _ in all_of_it for table in _CREATED.findall(text)}
    replaced = {each for text, _ in all_of_it for each in _DROPPED_CONSTRAINT.findall(text)}
    for text, comments in all_of_it:
        if "-- contract:" in comments:
            continue
        for rule, why in _RULES:
            if rule.search(text):
                yield f"{name}: {why}: {text[:90]}"
        altered = re.match(r"ALTER TABLE (?:ONLY )?(?:IF EXISTS )?([\w.]+) (.*)", text)
        if altered is None or altered[1] in created:
            index = re.match(r"CREATE UNIQUE INDEX \w+ ON ([\w.]+)", text)
            if index is not None and index[1] not in created:
                yield f"{name}: refuses rows that old code may write: {text[:90]}"
            continue
        for part in re.split(r",\s*(?=ADD|DROP|ALTER)", altered[2]):
            added = part.startswith("ADD COLUMN")
            if added and "NOT NULL" in part and not re.search(r"\b(DEFAULT|GENERATED)\b", part):
                yield f"{name}: wants what old code does not write: {part[:90]}"
            if (constraint := _ADDED_CONSTRAINT.match(part)) is not None and constraint[1] not in replaced:
                yield f"{name}: refuses rows that old code may write: {part[:90]}"


def main() -> int:
    """Print the findings; return 1 where there are any."""
    wrong = [
        line
        for migration in load_migrations()
        if migration.version > BASE
        for line in findings(migration.name, migration.sql)
    ]
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
