"""What must never be read in a log."""

from wire.scrubbing import scrub


def test_named_secrets_and_long_digit_runs_are_scrubbed() -> None:
    line = scrub('payee="somchai" signature=abc123 sent to 0812345678 amount 12345')
    assert "somchai" not in line
    assert "abc123" not in line
    assert "0812345678" not in line
    assert "amount 12345" in line
