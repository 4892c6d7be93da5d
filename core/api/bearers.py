"""People at the API: a bearer token of the identity provider opens the routes for people on call, and nothing else."""

from dataclasses import replace
from typing import Final

from starlette.requests import Request

from core.bootstrap import Core
from core.domain.roles import Role
from core.services.access.identity import IssuerError
from core.services.access.keys import Caller
from core.services.problems import Refusal

_SCHEME: Final = "bearer "
_ONE_REDRIVE: Final = "/v1/redrives/{redrive_id}"
_ONE_ALERT: Final = "/v1/alerts/{alert_id}"
_ONE_BREAK: Final = "/v1/breaks/{break_id}"
_ONE_REGISTER: Final = "/v1/registers/{register_id}"
_ONE_ITEM: Final = "/v1/suspense/{item_id}"
_ONE_RAIL: Final = "/v1/rails/{rail}"
_STREAMS: Final = "/v1/streams/{rail}"

PEOPLE_ROUTES: Final[dict[tuple[str, str], Role]] = {
    ("GET", "/v1/intents"): Role.VIEWER,
    ("GET", "/v1/intents/{intent_id}"): Role.VIEWER,
    ("GET", "/v1/intents/{intent_id}/events"): Role.VIEWER,
    ("GET", "/v1/dead-letters"): Role.VIEWER,
    ("GET", "/v1/dead-letters/groups"): Role.VIEWER,
    ("GET", "/v1/dead-letters/{letter_id}"): Role.VIEWER,
    ("GET", "/v1/stories/{story_id}"): Role.VIEWER,
    ("GET", "/v1/redrives"): Role.VIEWER,
    ("GET", _ONE_REDRIVE): Role.VIEWER,
    ("GET", f"{_ONE_REDRIVE}/letters"): Role.VIEWER,
    ("GET", "/v1/alerts"): Role.VIEWER,
    ("GET", "/v1/breaks"): Role.VIEWER,
    ("GET", _ONE_BREAK): Role.VIEWER,
    ("POST", f"{_ONE_BREAK}/preview"): Role.VIEWER,
    ("GET", "/v1/registers"): Role.VIEWER,
    ("GET", _ONE_REGISTER): Role.VIEWER,
    ("GET", "/v1/recon/runs"): Role.VIEWER,
    ("GET", "/v1/recon/runs/{run_id}"): Role.VIEWER,
    ("GET", "/v1/recon/report"): Role.VIEWER,
    ("GET", "/v1/reviews"): Role.VIEWER,
    ("GET", "/v1/suspense"): Role.VIEWER,
    ("GET", _ONE_ITEM): Role.VIEWER,
    ("GET", "/v1/audit"): Role.VIEWER,
    ("GET", "/v1/audit/proof"): Role.VIEWER,
    ("GET", "/v1/audit/export"): Role.VIEWER,
    ("GET", "/v1/rails"): Role.VIEWER,
    ("GET", f"{_ONE_RAIL}/events"): Role.VIEWER,
    ("GET", "/v1/streams"): Role.VIEWER,
    ("GET", f"{_STREAMS}/held"): Role.VIEWER,
    ("GET", f"{_STREAMS}/difference"): Role.VIEWER,
    ("POST", f"{_ONE_RAIL}/pause"): Role.OPERATOR,
    ("POST", f"{_ONE_RAIL}/resume"): Role.OPERATOR,
    ("POST", f"{_STREAMS}/release"): Role.OPERATOR,
    ("POST", f"{_STREAMS}/claim"): Role.OPERATOR,
    ("POST", f"{_STREAMS}/rebuild"): Role.OPERATOR,
    ("POST", f"{_STREAMS}/janitor"): Role.OPERATOR,
    ("POST", "/v1/intents/{intent_id}/reveal"): Role.OPERATOR,
    ("POST", "/v1/intents/{intent_id}/ask"): Role.OPERATOR,
    ("POST", "/v1/redrives"): Role.OPERATOR,
    ("POST", f"{_ONE_REDRIVE}/cancel"): Role.OPERATOR,
    ("POST", f"{_ONE_ALERT}/close"): Role.OPERATOR,
    ("POST", f"{_ONE_ALERT}/reopen"): Role.OPERATOR,
    ("POST", "/v1/hand-settlements"): Role.OPERATOR,
    ("POST", f"{_ONE_REGISTER}/original"): Role.OPERATOR,
    ("POST", "/v1/registers"): Role.OPERATOR,
    ("POST", "/v1/registers:upload"): Role.OPERATOR,
    ("POST", "/v1/registers:fetch"): Role.OPERATOR,
    ("POST", "/v1/recon/runs"): Role.OPERATOR,
    ("POST", "/v1/recon/books"): Role.OPERATOR,
    ("POST", f"{_ONE_BREAK}/assign"): Role.OPERATOR,
    ("POST", f"{_ONE_BREAK}/resolve"): Role.OPERATOR,
    ("POST", f"{_ONE_ITEM}/assign"): Role.OPERATOR,
    ("POST", f"{_ONE_ITEM}/return"): Role.OPERATOR,
    ("POST", f"{_ONE_REDRIVE}/approve"): Role.APPROVER,
    ("POST", f"{_ONE_REDRIVE}/reject"): Role.APPROVER,
    ("POST", f"{_ONE_ALERT}/approve"): Role.APPROVER,
    ("POST", f"{_ONE_BREAK}/approve"): Role.APPROVER,
    ("POST", "/v1/intents/{intent_id}/review"): Role.APPROVER,
}
"""What a person may ask for, and the least role; every other route takes a service key's signature."""


def bearer_of(request: Request) -> str | None:
    """Return the request's bearer token, None where it has none."""
    given = request.headers.get("authorization", "")
    return given[len(_SCHEME) :].strip() if given[: len(_SCHEME)].lower() == _SCHEME else None


async def person_of(core: Core, request: Request, token: str) -> Caller:
    """Return who the token speaks for. One of the system's people may name a tenant by `Fleet-Tenant`.

    Raises Refusal: unauthenticated, sign_in_refused, role_missing, person_exists, operation_not_permitted, not_found.
    """
    if core.issuer is None:
        raise Refusal("unauthenticated", "no identity provider is set here: sign the request with a service key")
    try:
        claims = await core.issuer.bearer(token)
    except IssuerError as error:
        raise Refusal("unauthenticated", str(error)) from error
    path = getattr(request.scope.get("route"), "path", request.url.path)
    least = PEOPLE_ROUTES.get((request.method, path))
    if least is None:
        raise Refusal("operation_not_permitted", "this route takes a service key: see docs/signing.md")
    person = await core.people.vouched(core.claims.identity(claims))
    if not person.role.covers(least):
        raise Refusal("role_missing", f"this takes the role {least}: yours is {person.role}")
    tenant = request.headers.get("fleet-tenant")
    if tenant is None:
        return person.caller()
    chosen = next((each for each in await core.tenants.all("console") if str(each.id) == tenant.lower()), None)
    if chosen is None or not (person.everywhere or person.tenant_id == chosen.id):
        raise Refusal("not_found", "there is no such tenant")
    return replace(person.caller(), tenant_id=chosen.id)
