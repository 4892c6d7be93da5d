"""Rows as arrays for `unnest`: a column that is the same in every row travels as one element.

Each element costs its encoding here and its decoding there, more than most of what is done with it; and of what a batch
of payments is made of, the most is alike in all of them, or NULL.
"""

from collections.abc import Mapping, Sequence
from typing import Any


def spare(column: list[Any]) -> list[Any]:
    """Return the column, or the one value that all its rows have."""
    first = column[0]
    # The ends first: most columns that differ, differ there.
    if column[-1] is not first and column[-1] != first:
        return column
    return [first] if column.count(first) == len(column) else column


def spared_rows(types: Sequence[str], objects: Mapping[int, str] | None = None) -> str:
    """Return a SELECT of rows whose columns are the parameters from $1 on, each as `spare` returns it.

    The first column, which says how many rows there are, is not spared. A column with a number in `objects`, from 1 on,
    is of the places that `listed` returns, and the array there, a parameter too, has the objects.
    """
    names = [f"c{place}" for place in range(1, len(types) + 1)]
    arrays = [f"${place}::{kind}[]" for place, kind in enumerate(types, start=1)]
    chosen = [
        f"CASE cardinality({array}) WHEN 1 THEN ({array})[1] ELSE {name} END"
        for array, name in zip(arrays[1:], names[1:], strict=True)
    ]
    for number, array in (objects or {}).items():
        chosen[number - 2] = f"({array})[{chosen[number - 2]}]"
    rows = f"unnest({', '.join(arrays)}) AS v({', '.join(names)})"
    return f"SELECT {', '.join([names[0], *chosen])} FROM {rows}"  # noqa: S608 - names and types are this program's


def listed(column: Sequence[Any]) -> tuple[list[Any], list[int | None]]:
    """Return the objects of a column, each once and None never, and for each row the place of its own, from 1 on.

    For what is dear to read and much alike: a text that many rows share is read there once.
    """
    objects = {id(each): each for each in column if each is not None}
    places: dict[int, int | None] = {key: place for place, key in enumerate(objects, start=1)}
    return list(objects.values()), [places.get(id(each)) for each in column]


def lone_row(types: Sequence[str]) -> str:
    """Return a SELECT of the one row whose columns are the parameters from $1 on.

    Most payments come alone: an array and an unnest for each column would cost one more than the writing of its row.
    """
    return f"SELECT {', '.join(f'${place}::{kind}' for place, kind in enumerate(types, start=1))}"
