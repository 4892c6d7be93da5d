"""Keeps payees, secrets and signatures out of the logs, whoever wrote the line."""

import logging
import re

_NAMED = re.compile(r"(?i)\b(payee|secret|password|signature|authorization)(\"?\s*[:=]\s*\"?)[^\s\",}]+")
_DIGITS = re.compile(r"(?<![0-9a-fA-F-])\d{9,}(?![0-9a-fA-F-])")


def scrub(text: str) -> str:
    """The text without named secrets and without runs of nine digits and more (phones, accounts, ids)."""
    return _DIGITS.sub("[digits]", _NAMED.sub(r"\1\2[scrubbed]", text))


class ScrubbingFilter(logging.Filter):
    """Scrubs the finished message of every record; set it on handlers, so that libraries pass it too."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True: the record is changed, never dropped."""
        record.msg, record.args = scrub(record.getMessage()), None
        return True
