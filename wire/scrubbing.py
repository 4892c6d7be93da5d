"""Keeps payees, secrets and signatures out of the logs, whoever wrote the line."""

import logging
import re

_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
_GROUPED = r"(?:\w*\([^)]*\)|\{[^}]*\}|\[[^\]]*\])"
_BARE = r"""(?:(?:(?:bearer|basic)\s+)?[^\s"',}]+)"""
_NAMED = re.compile(
    r"(?i)(?<![a-z])((?:payee|payer|secret|password|signature|authorization|token)\w*)(['\"]?\s*[:=]\s*)"
    rf"(?:{_QUOTED}|{_GROUPED}|{_BARE})"
)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")

# Ids that an operator searches by come first and are kept: UUIDs, trace ids, stream entries, dates with times.
_DIGITS = re.compile(
    r"(?P<kept>\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
    r"|\b(?=\d*[a-fA-F])[0-9a-fA-F]{32}\b"
    r"|\b1[6-9]\d{11}-\d{1,6}\b"
    r"|\b20\d\d-[01]\d-[0-3]\d(?:[ T][0-2]\d:[0-5]\d)?(?:(?!\d)|(?=:)))"
    r"|\d(?:[ -]?\d){8,}"
)


def scrub(text: str) -> str:
    """The text without named secrets and without runs of nine digits and more, spaced or dashed ones included."""
    named = _URL_PASSWORD.sub(r"\1[scrubbed]@", _NAMED.sub(r"\1\2[scrubbed]", text))
    return _DIGITS.sub(lambda found: found["kept"] or "[digits]", named)


class ScrubbingFilter(logging.Filter):
    """Scrubs the finished message and the traceback of every record; set it on handlers, so that libraries pass it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True: the record is changed, never dropped."""
        record.msg, record.args = scrub(record.getMessage()), None
        if record.exc_info:
            # Every formatter prefers this text, so what an exception quotes is never formatted again.
            record.exc_text = scrub(logging.Formatter().formatException(record.exc_info))
        if record.stack_info:
            record.stack_info = scrub(record.stack_info)
        return True
