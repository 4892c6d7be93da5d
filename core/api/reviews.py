"""Reviews over HTTP: what waits for a decision, and the decision, under a key that names REVIEW."""

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import Page, parse, path_id, query_of
from core.api.signed_routes import Route, SignedRoutes
from core.services.access.keys import REVIEW_SCOPE
from core.services.payments.read_intents import IntentFilter, intent_shown
from core.services.payments.reviews import decide_review
from schemas.api import IntentPage, IntentView, ReviewRequest
from schemas.events import IntentState


class ReviewRoutes(SignedRoutes):
    """The routes of reviews."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("GET", "/v1/reviews", self.list_reviews, IntentPage, 200, None),
            ("POST", "/v1/intents/{intent_id}/review", self.decide, IntentView, 200, ReviewRequest),
        )

    @tells(query=Page)
    async def list_reviews(self, request: Request) -> Response:
        """List what waits in REVIEW, newest first."""
        caller, _ = await self._operator(request, REVIEW_SCOPE)
        query = query_of(Page, request)
        accounts = None if caller.accounts is None else list(caller.accounts)
        wanted = IntentFilter(state=IntentState.REVIEW, accounts=accounts)
        rows, following = await self._core.read.page(caller, wanted, query.cursor, query.limit)
        return json_answer({"items": [intent_shown(row, caller) for row in rows], "next_cursor": following})

    async def decide(self, request: Request) -> Response:
        """Approve or reject; not with the key that asked for the payment."""
        caller, body = await self._operator(request, REVIEW_SCOPE)
        asked = parse(ReviewRequest, body, request.headers.get("content-type"))
        row = await decide_review(self._core.ports, caller, path_id(request, "intent_id"), asked)
        return json_answer(intent_shown(row, caller))
