"""Stretches of the past that a round compares: together they are all of it, whatever the pace."""

from datetime import UTC, datetime, timedelta

import pytest

from core.services.recon.rounds import LATELY, slices_of

ROUND = timedelta(days=30)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGUN = EPOCH + 685 * ROUND
OLDEST = BEGUN - timedelta(days=400)


@pytest.mark.parametrize("step", [timedelta(hours=1), timedelta(seconds=3607), timedelta(days=7), ROUND])
def test_the_slices_of_a_round_leave_no_gap_and_end_where_the_recent_begins(step: timedelta) -> None:
    upto, moment = OLDEST, BEGUN
    while moment < BEGUN + ROUND:
        end = min(moment + step, BEGUN + ROUND)
        for since, until in slices_of(OLDEST, moment, end, ROUND):
            assert abs(since - upto) < timedelta(milliseconds=1)
            assert since < until
            upto = until
        moment = end
    assert abs(upto - (BEGUN - LATELY)) < timedelta(milliseconds=1)


def test_two_slices_meet_in_the_very_same_moment() -> None:
    middle = BEGUN + timedelta(seconds=123_457)
    (first,) = slices_of(OLDEST, BEGUN, middle, ROUND)
    (second,) = slices_of(OLDEST, middle, middle + timedelta(seconds=3601), ROUND)
    assert first[1] == second[0]


def test_a_stretch_over_the_end_of_a_round_belongs_to_both() -> None:
    hour = timedelta(hours=1)
    last, first = slices_of(OLDEST, BEGUN + ROUND - hour, BEGUN + ROUND + hour, ROUND)
    assert last[1] == BEGUN - LATELY
    assert first[0] == OLDEST


def test_books_of_yesterday_have_no_past_to_compare() -> None:
    assert slices_of(BEGUN - timedelta(days=1), BEGUN, BEGUN + ROUND, ROUND) == []


def test_an_hour_is_a_720th_of_the_past() -> None:
    ((since, until),) = slices_of(OLDEST, BEGUN, BEGUN + timedelta(hours=1), ROUND)
    assert until - since == (BEGUN - LATELY - OLDEST) / 720
