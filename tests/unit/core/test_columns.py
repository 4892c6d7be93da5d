"""Columns that are the same in every row travel as one element, and no others do."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from core.store.columns import lone_row, spare, spared_rows


@given(st.lists(st.none() | st.sampled_from(["a", "b"]), min_size=1, max_size=6))
def test_a_column_is_one_element_exactly_where_all_its_rows_are_equal(column: list[str | None]) -> None:
    spared = spare(column)
    # What the database does with it: one element stands for every row.
    assert (spared * len(column) if len(spared) == 1 else spared) == column
    assert (len(spared) == 1) == (len(set(column)) == 1)


def test_the_first_column_says_how_many_rows_there_are() -> None:
    text = spared_rows(["uuid", "text"])
    assert text.startswith(
        "SELECT c1, CASE cardinality($2::text[]) WHEN 1 THEN ($2::text[])[1] ELSE c2 END FROM unnest("
    )
    assert spare([UUID(int=1), None, UUID(int=1)]) == [UUID(int=1), None, UUID(int=1)]


def test_a_row_that_is_alone_needs_no_array() -> None:
    assert lone_row(["uuid", "text"]) == "SELECT $1::uuid, $2::text"
