"""The garbage collector's pace, for processes that make many short-lived objects and few cycles."""

import gc


def collect_rarely() -> None:
    """Leave what start-up made out of every collection, and look for cycles rarely: batches are freed by counting."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
