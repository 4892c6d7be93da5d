"""What rows share travels once: columns that are the same in all, objects that several have."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from core.store.columns import listed, lone_row, spare, spared_rows


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


@given(st.lists(st.none() | st.sampled_from([("a",), ("b",), ("c",)]), max_size=8))
def test_of_a_column_of_objects_each_is_listed_once_and_found_at_its_place(column: list[tuple[str] | None]) -> None:
    objects, places = listed(column)
    # What the database does with it: places count from 1, and nothing is at NULL.
    assert [None if place is None else objects[place - 1] for place in places] == column
    assert len(objects) == len({each for each in column if each is not None})


def test_places_in_a_list_of_objects_are_read_there() -> None:
    text = spared_rows(["uuid", "int"], {2: "$9::jsonb[]"})
    assert "SELECT c1, ($9::jsonb[])[CASE cardinality($2::int[]) WHEN 1 THEN ($2::int[])[1] ELSE c2 END] FROM" in text


def test_a_row_that_is_alone_needs_no_array() -> None:
    assert lone_row(["uuid", "text"]) == "SELECT $1::uuid, $2::text"
