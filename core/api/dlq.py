"""Dead letters over HTTP: search, groups, one letter, the story of a payment; under a key that names DEAD_LETTERS."""

from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import path_id, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.services.access.keys import DEAD_LETTERS_SCOPE
from core.services.cursors import decode_cursor, encode_cursor, id_of
from core.services.on_call.dead_letters import cursor_behind, group_before, letter_detail, letter_document
from core.services.on_call.explain import explain
from core.services.on_call.rail_desk import require_known
from core.services.on_call.redrives import background_context, filter_of, reach
from core.services.problems import Refusal
from schemas.on_call import LetterDetail, LetterGroups, LetterGroupView, LetterPage, LetterQuery, Story


class DeadLetterRoutes(SignedRoutes):
    """The routes of dead letters."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("GET", "/v1/dead-letters", self.list_letters, LetterPage, 200, None),
            ("GET", "/v1/dead-letters/groups", self.list_groups, LetterGroups, 200, None),
            ("GET", "/v1/dead-letters/{letter_id}", self.show_letter, LetterDetail, 200, None),
            ("GET", "/v1/stories/{story_id}", self.tell_story, Story, 200, None),
        )

    @tells(query=LetterQuery)
    async def list_letters(self, request: Request) -> Response:
        """List letters, newest first, each judged as it stands."""
        caller, _ = await self._operator(request, DEAD_LETTERS_SCOPE)
        query, ports = query_of(LetterQuery, request), self._core.worker_ports
        after = None if query.cursor is None else id_in(query.cursor)
        async with ports.unit_of_work(background_context(caller)) as uow:
            await self._require_rail(uow, query)
            found = await ports.letters.list_letters(uow, filter_of(query, caller), query.limit + 1, after)
        following = encode_cursor(str(found[query.limit - 1].id)) if len(found) > query.limit else None
        return json_answer({"items": [letter_document(x) for x in found[: query.limit]], "next_cursor": following})

    @tells(query=LetterQuery)
    async def list_groups(self, request: Request) -> Response:
        """Count all that match by fingerprint, the largest group first."""
        caller, _ = await self._operator(request, DEAD_LETTERS_SCOPE)
        query, ports = query_of(LetterQuery, request), self._core.worker_ports
        after = None if query.cursor is None else group_before(query.cursor)
        async with ports.unit_of_work(background_context(caller)) as uow:
            await self._require_rail(uow, query)
            found = await ports.letters.group_letters(uow, filter_of(query, caller), query.limit + 1, after)
        names, items = LetterGroupView.model_fields, found[: query.limit]
        following = cursor_behind(items[-1]) if len(found) > query.limit else None
        shown = [{name: getattr(group, name) for name in names} for group in items]
        return json_answer({"items": shown, "next_cursor": following})

    async def _require_rail(self, uow: Any, query: LetterQuery) -> None:
        # Of a misspelt rail there are no letters: that would read as if all were well.
        if query.rail is not None:
            await require_known(uow, self._core.worker_ports.rails, query.rail)

    async def show_letter(self, request: Request) -> Response:
        """Show one letter with every attempt at it, the evidence, and where more is told."""
        caller, _ = await self._operator(request, DEAD_LETTERS_SCOPE)
        ports, letter_id = self._core.worker_ports, path_id(request, "letter_id")
        async with ports.unit_of_work(background_context(caller)) as uow:
            letter = await ports.letters.find_letter(uow, letter_id, reach(caller))
            if letter is None:
                raise Refusal("not_found", "there is no such dead letter")
            tried = await ports.letters.tried(uow, letter)
        return json_answer(letter_detail(letter, tried, self._core.settings.trace_url))

    async def tell_story(self, request: Request) -> Response:
        """Tell everything that happened to the payment that an id names: its own, its job's or its dead letter's."""
        caller, _ = await self._operator(request, DEAD_LETTERS_SCOPE)
        ports, story_id = self._core.worker_ports, path_id(request, "story_id")
        async with ports.unit_of_work(background_context(caller)) as uow:
            return json_answer(await explain(uow, ports.stories, caller, story_id))


def id_in(cursor: str) -> UUID:
    """Return the id in a cursor. Raises Refusal `cursor_malformed`."""
    return id_of(decode_cursor(cursor, 1)[0])
