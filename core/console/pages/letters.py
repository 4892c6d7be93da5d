"""Dead letters: search, groups, one with its verdict and story; and everything that begins with them."""

from datetime import UTC, datetime
from typing import Final

from core.console.visit import PAGE, Answer, Page, Screen, Visit
from core.domain.roles import Role
from core.services.cursors import decode_cursor, encode_cursor, id_of
from core.services.on_call.dead_letters import cursor_behind, group_before, trace_page
from core.services.on_call.explain import explain
from core.services.on_call.redrives import filter_of, reach
from core.services.problems import Refusal
from schemas.on_call import LetterFields, LetterQuery, LetterSelection, LetterState

FIELDS: Final = tuple(LetterFields.model_fields)
"""What a search of letters may be narrowed by; a redrive of all that match takes the same."""
_TIMES: Final = ("received_after", "received_before")


def kept_fields(visit: Visit) -> dict[str, str]:
    """Return what of the form narrows a search, as it was written."""
    return {name: visit.form[name] for name in FIELDS if name in visit.form}


def selection_of(visit: Visit) -> LetterSelection:
    """Return the letters that a form means: all that match its fields. Raises Refusal `invalid_request`."""
    times = {name: _time(visit.form[name], name) for name in _TIMES if name in visit.form}
    return visit.asked(LetterSelection, **times)


def _time(text: str, name: str) -> datetime:
    """Return a time; without a zone it is UTC, as the pages show it."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise Refusal("invalid_request", "write a time such as 2026-11-21 03:00", field=name) from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _query(visit: Visit) -> LetterQuery:
    times = {name: _time(visit.form[name], name) for name in _TIMES if name in visit.form}
    return visit.asked(LetterQuery, **times)


async def list_letters(visit: Visit) -> Answer:
    """Search letters: newest first, each judged as it stands."""
    wanted, ports = filter_of(_query(visit), visit.caller), visit.core.worker_ports
    after = id_of(decode_cursor(visit.form["cursor"], 1)[0]) if "cursor" in visit.form else None
    async with visit.background() as uow:
        found = list(await ports.letters.list_letters(uow, wanted, PAGE + 1, after))
    following = encode_cursor(str(found[PAGE - 1].id)) if len(found) > PAGE else None
    values = {"letters": found[:PAGE], "following": following, "kept": kept_fields(visit), "state": wanted.state}
    return Page("letters.html", values | {"states": list(LetterState)})


async def list_groups(visit: Visit) -> Answer:
    """Count all that match by fingerprint, the largest first."""
    wanted, ports = filter_of(_query(visit), visit.caller), visit.core.worker_ports
    after = group_before(visit.form["cursor"]) if "cursor" in visit.form else None
    async with visit.background() as uow:
        found = list(await ports.letters.group_letters(uow, wanted, PAGE + 1, after))
    following = cursor_behind(found[PAGE - 1]) if len(found) > PAGE else None
    values = {"groups": found[:PAGE], "following": following, "kept": kept_fields(visit), "state": wanted.state}
    return Page("letter_groups.html", values | {"states": list(LetterState)})


async def show_letter(visit: Visit) -> Answer:
    """Show one letter, its verdict, and the story of its payment."""
    ports = visit.core.worker_ports
    async with visit.background() as uow:
        letter = await ports.letters.find_letter(uow, visit.path_id("letter_id"), reach(visit.caller))
        if letter is None:
            raise Refusal("not_found", "there is no such dead letter")
        tried, story = await ports.letters.tried(uow, letter), None
        if letter.intent_id is not None:
            story = await explain(uow, ports.stories, visit.caller, letter.intent_id)
    trace = trace_page(letter.trace_id, visit.core.settings.trace_url)
    return Page("letter.html", {"letter": letter, "tried": tried, "trace_page": trace, "story": story})


SCREENS = (
    Screen("GET", "/dead-letters", list_letters, Role.VIEWER),
    Screen("GET", "/dead-letters/groups", list_groups, Role.VIEWER),
    Screen("GET", "/dead-letters/{letter_id}", show_letter, Role.VIEWER),
)
