"""The review queue: payments that wait, held, for a person's decision."""

from core.console.visit import PAGE, Answer, Page, Redirect, Screen, Visit
from core.domain.roles import Role
from core.services.access.keys import REVIEW_SCOPE
from core.services.payments.read_intents import IntentFilter
from core.services.payments.reviews import decide_review
from schemas.api import ReviewRequest
from schemas.events import IntentState


async def list_reviews(visit: Visit) -> Answer:
    """List what waits, newest first."""
    visit.caller.require_operation(REVIEW_SCOPE)
    wanted = IntentFilter(state=IntentState.REVIEW)
    rows, following = await visit.core.read.page(visit.in_tenant, wanted, visit.form.get("cursor"), PAGE)
    return Page("reviews.html", {"intents": rows, "following": following})


async def decide(visit: Visit) -> Answer:
    """Approve or reject one."""
    asked = visit.asked(ReviewRequest)
    await decide_review(visit.core.ports, visit.in_tenant, visit.path_id("intent_id"), asked)
    return Redirect("/reviews", "decided")


SCREENS = (
    Screen("GET", "/reviews", list_reviews, Role.VIEWER),
    Screen("POST", "/reviews/{intent_id}", decide, Role.APPROVER),
)
