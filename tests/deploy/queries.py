"""Reads a PromQL expression: which series it names, with which labels."""

import re
from collections.abc import Iterator
from typing import Any

import promql_parser

_GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (name, what its labels are matched by) of every selector. Raises ValueError where it is no PromQL."""
    yield from _walk(promql_parser.parse(expression))


def grouping_labels(expression: str) -> set[str]:
    """Return the labels that the expression groups by."""
    return {label.strip() for group in _GROUPED.findall(expression) for label in group.split(",") if label.strip()}


def _walk(node: Any) -> Iterator[tuple[str, dict[str, str]]]:
    if isinstance(node, promql_parser.VectorSelector):
        yield str(node.name), {matcher.name: matcher.value for matcher in node.matchers.matchers}
    for name in ("expr", "lhs", "rhs", "args", "vector_selector", "param"):
        found = getattr(node, name, None)
        for child in found if isinstance(found, list) else [found]:
            if child is not None:
                yield from _walk(child)
