"""A cursor that we did not write is refused, whatever is in it."""

from uuid import uuid4

import pytest

from core.services.cursors import BIGINT_MAX, INTEGER_MAX, decode_cursor, encode_cursor, id_of, number_of
from core.services.problems import Refusal


def test_what_was_written_is_read() -> None:
    key = uuid4()
    tenant, number = decode_cursor(encode_cursor(str(key), str(INTEGER_MAX)), 2)
    assert (id_of(tenant), number_of(number)) == (key, INTEGER_MAX)
    assert number_of(str(BIGINT_MAX), BIGINT_MAX) == BIGINT_MAX


@pytest.mark.parametrize("text", ["", "-1", "1_0", "٣", " 1", str(INTEGER_MAX + 1), "9" * 5000])
def test_a_number_that_no_column_holds_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        number_of(text)
    assert (refused.value.code, refused.value.field) == ("cursor_malformed", "cursor")


@pytest.mark.parametrize("text", ["", "not-an-id", "9" * 400])
def test_an_id_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Refusal):
        id_of(text)
