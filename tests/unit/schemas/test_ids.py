"""Ids carry time, and the derived ones are the same for the same input, always."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import derive_id, id_time_ms, mint_id, mint_ids

TIMES = st.integers(0, 2**48 - 1)


@given(TIMES)
def test_a_minted_id_is_a_version_7_uuid_that_carries_its_time(now_ms: int) -> None:
    minted = mint_id(now_ms)
    assert (minted.version, minted.variant) == (7, "specified in RFC 4122")
    assert id_time_ms(minted) == now_ms


@given(TIMES, st.integers(0, 50))
def test_ids_minted_together_are_all_different_and_of_one_moment(now_ms: int, count: int) -> None:
    minted = mint_ids(now_ms, count)
    assert len(set(minted)) == len(minted) == count
    assert {(each.version, each.variant, id_time_ms(each)) for each in minted} <= {(7, "specified in RFC 4122", now_ms)}


@given(TIMES, st.lists(st.text(max_size=8), max_size=4))
def test_a_derived_id_repeats_and_keeps_its_parents_time(now_ms: int, parts: list[str]) -> None:
    parent = mint_id(now_ms)
    derived = derive_id(parent, *parts)
    assert derived == derive_id(parent, *parts)
    assert derived.version == 8
    assert id_time_ms(derived) == now_ms


def test_part_boundaries_and_parents_tell_ids_apart() -> None:
    parent, other = mint_id(1), mint_id(1)
    derived = {derive_id(parent, "a", "bc"), derive_id(parent, "ab", "c"), derive_id(parent, "abc")}
    assert len(derived) == 3
    assert derive_id(other, "abc") not in derived


def test_the_derivation_never_changes_between_versions() -> None:
    parent = UUID("018bcfe5-6800-7000-8000-000000000000")
    assert str(derive_id(parent, "hold", "principal")) == "018bcfe5-6800-8921-a7e5-334f941c81dd"


def test_all_but_six_bits_behind_the_time_are_drawn_by_chance() -> None:
    minted = [each.int & (1 << 80) - 1 for each in mint_ids(1, 200)]
    always, ever = minted[0], 0
    for tail in minted:
        always, ever = always & tail, ever | tail
    assert (always, ever) == (0x7 << 76 | 0b10 << 62, (1 << 80) - 1 - (0x8 << 76) - (0b01 << 62))
