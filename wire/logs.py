"""One scrubbed JSON object a line on stderr: the same for the core and for every adapter."""

import logging
from datetime import UTC, datetime
from typing import Any

import orjson

from wire.scrubbing import ScrubbingFilter


class JsonLines(logging.Formatter):
    """Writes `at` (UTC), `level`, `process`, `logger`, `message` and the `error` with its trace."""

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
