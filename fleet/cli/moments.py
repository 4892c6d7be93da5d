"""How a moment is typed: as ISO 8601 writes it, in UTC where no zone is named."""

from datetime import UTC, datetime

import typer


def moment(typed: str) -> datetime:
    """Return the moment, with its zone. Raises BadParameter where the text is none.

    Of itself typer takes a bare number for seconds since 1970, and leaves a zone or its absence to each command.
    """
    try:
        read = datetime.fromisoformat(typed)
    except ValueError as error:
        raise typer.BadParameter("it is no moment such as 2026-11-30T17:00:00Z") from error
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)
