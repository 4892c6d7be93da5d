"""What must never be read in a log, and what an operator must still find there."""

import contextvars
import logging

import orjson
import pytest

from wire.logs import JsonLines, log_about
from wire.scrubbing import ScrubbingFilter, scrub


def test_named_secrets_and_long_digit_runs_are_scrubbed() -> None:
    line = scrub('payee="somchai" signature=abc123 sent to 0812345678 amount 12345')
    assert "somchai" not in line
    assert "abc123" not in line
    assert "0812345678" not in line
    assert "amount 12345" in line


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ('payee="Somchai Jaidee"', "Jaidee"),
        ("{'payee': 'Somchai Jaidee'}", "Jaidee"),
        ('{"payee_name": "So\\"mchai", "x": 1}', "mchai"),
        ("payee=Payee(type='phone', value='nobody')", "nobody"),
        ("payee={'value': 'nobody'} failed", "nobody"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("client_secret=hush", "hush"),
        ("redis://adapter:hush@127.0.0.1:6379/0", "hush"),
        ("call 081-234-5678 now", "234"),
        ("iban DE89 3704 0044 0532 0130 00", "0532"),
        ("ref a0812345678", "0812345678"),
        ("id 1-2345-67890-12-3", "67890"),
        ("at 1234567890123", "1234567890123"),
    ],
)
def test_what_names_a_person_or_opens_a_door_is_scrubbed(text: str, hidden: str) -> None:
    assert hidden not in scrub(text)


@pytest.mark.parametrize(
    "text",
    [
        "job 01936f2a-7c11-7000-8000-012345678901 done",
        "trace 4bf92f3577b34da6a3ce929d0e0e4736",
        "entry 1763707045123-0 lost",
        "at 2026-11-21 06:37:25 and 2026-11-21T06:37:25",
        "amount_minor 12345678",
    ],
)
def test_ids_times_and_amounts_stay_readable(text: str) -> None:
    assert scrub(text) == text


def test_a_traceback_is_scrubbed_and_stays_on_one_line() -> None:
    with pytest.raises(ValueError, match="Somchai") as caught:
        int("payee='Somchai' at 0812345678")
    kind = (caught.type, caught.value, caught.tb)
    record = logging.LogRecord("core", logging.ERROR, __file__, 1, "sent to %s", ("0898765432",), kind)
    assert ScrubbingFilter().filter(record)
    line = JsonLines("core").format(record)
    assert "\n" not in line
    for hidden in ("Somchai", "0812345678", "0898765432"):
        assert hidden not in line
    found = orjson.loads(line)
    assert (found["level"], found["process"], found["logger"]) == ("ERROR", "core", "core")
    assert "ValueError" in found["error"]


def test_a_line_names_the_trace_and_the_payment_that_its_task_is_about() -> None:
    def line_of(**extra: object) -> dict[str, object]:
        record = logging.makeLogRecord({"name": "core", "levelno": logging.ERROR, "msg": "it fails", **extra})
        found: dict[str, object] = orjson.loads(JsonLines("core").format(record))
        return found

    assert line_of().keys() == {"at", "level", "process", "logger", "message"}
    assert line_of(job_id=7)["job_id"] == "7"

    def about() -> dict[str, object]:
        log_about("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "01936f2a-7c11-7000-8000-012345678901")
        return line_of()

    told = contextvars.copy_context().run(about)
    assert told["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert told["intent_id"] == "01936f2a-7c11-7000-8000-012345678901"
    assert "trace_id" not in line_of(), "another task is about something else"
