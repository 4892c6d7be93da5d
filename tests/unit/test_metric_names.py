"""A metric's name tells its unit, and no label can grow without bound."""

import pytest
from prometheus_client import Counter

from tools.metrics import PAGE, declared, labels_of, page

CLOSED = {
    "rail", "provider", "operation", "kind", "cause", "action", "outcome", "answer", "verdict", "stream", "group",
    "error_class", "lane", "loop", "listener", "match", "route", "status", "pool", "state", "severity", "ledger",
}  # fmt: skip
"""Labels whose values stand in the code or in the configuration, or are counted by ISO."""


@pytest.mark.parametrize("name", sorted(declared()))
def test_labels_are_closed_sets(name: str) -> None:
    assert set(labels_of(declared()[name])) <= CLOSED


@pytest.mark.parametrize("name", sorted(declared()))
def test_a_name_begins_with_the_prefix_and_a_counter_ends_with_total(name: str) -> None:
    assert name.startswith("fleet_")
    assert name.endswith("_total") == isinstance(declared()[name], Counter)


def test_the_page_is_what_the_code_declares() -> None:
    assert PAGE.read_text() == page()
