"""One scrubbed JSON object a line on stderr: the same for the core and for every adapter."""

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from wire.scrubbing import ScrubbingFilter

_ABOUT: ContextVar[tuple[str, object]] = ContextVar("about", default=("", ""))
_NAMED: Final = ("trace_id", "intent_id", "job_id")


def log_about(traceparent: str, intent_id: object = "") -> None:
    """Let every line of this task, and of tasks that it begins, name the trace and the payment."""
    _ABOUT.set((traceparent, intent_id))


class JsonLines(logging.Formatter):
    """Writes `at` (UTC), `level`, `process`, `logger`, `message` and the `error` with its trace.

    `trace_id`, `intent_id` and `job_id` stand where they are known: from `log_about`, or given as `extra`.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line: a line break inside it is escaped."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        traceparent, intent_id = _ABOUT.get()
        known = {"trace_id": traceparent[3:35], "intent_id": intent_id}
        line |= {name: str(found) for name in _NAMED if (found := getattr(record, name, None) or known.get(name))}
        if record.exc_info or record.exc_text:
            line["error"] = record.exc_text or self.formatException(record.exc_info or (None, None, None))
        if record.stack_info:
            line["stack"] = record.stack_info
        return orjson.dumps(line).decode()


def log_json_lines(process: str) -> None:
    """Set up the root logger of this process once; what is called per request elsewhere stays silent below WARNING."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(process))
    handler.addFilter(ScrubbingFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("httpx", "httpcore", "aiohttp.access", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
