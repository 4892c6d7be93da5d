"""Signing in, by a local password or by the identity provider, and out again."""

import base64
import binascii
import json
import logging
import secrets
from dataclasses import asdict
from typing import Final

from core.console.cookies import SESSION, SIGN_IN, Cookies
from core.console.visit import Answer, Page, Redirect, Screen, Visit, id_in
from core.domain.roles import Role
from core.services.access.identity import Begun, Issuer, IssuerError
from core.services.problems import Refusal
from core.services.vault_port import VaultError

_log = logging.getLogger(__name__)
_BOUND_TO: Final = "console sign-in"
_RETURN: Final = "/sign-in/return"


async def sign_in_page(visit: Visit) -> Answer:
    """Show the form, or the way to the identity provider."""
    if visit.session is not None:
        return Redirect("/")
    return Page("sign_in.html", {"refused": "", "issuer": visit.core.issuer is not None})


async def sign_in(visit: Visit) -> Answer:
    """Open a session by name and password."""
    try:
        opened = await visit.core.people.sign_in(visit.form.get("name", ""), visit.form.get("password", ""))
    except Refusal as refused:
        values = {"refused": refused.detail, "issuer": visit.core.issuer is not None}
        return Page("sign_in.html", values, refused.status)
    return Redirect("/", cookies={SESSION: opened.token})


async def to_issuer(visit: Visit) -> Answer:
    """Send the browser to the identity provider."""
    issuer = _issuer(visit)
    try:
        begun = await issuer.begin(_return_address(visit))
    except IssuerError as error:
        raise _refused(error) from error
    sealed = visit.core.worker_ports.vault.seal_bytes(json.dumps(asdict(begun)).encode(), bound_to=_BOUND_TO)
    return Redirect(begun.url, cookies={SIGN_IN: base64.urlsafe_b64encode(sealed).decode()})


async def from_issuer(visit: Visit) -> Answer:
    """Take the browser back: the state and the nonce must be those of this browser's own sign-in."""
    issuer, query = _issuer(visit), visit.request.query_params
    begun = _begun(visit)
    if begun is None or not secrets.compare_digest(query.get("state", "").encode(), begun.state.encode()):
        raise Refusal("sign_in_refused", "this sign-in was not begun here: begin again")
    if "code" not in query:
        raise Refusal("sign_in_refused", "the identity provider let nobody in")
    try:
        claims = await issuer.finish(_return_address(visit), query["code"], begun)
    except IssuerError as error:
        raise _refused(error) from error
    opened = await visit.core.people.sign_in_by(visit.core.claims.identity(claims))
    return Redirect("/", cookies={SESSION: opened.token, SIGN_IN: None})


async def sign_out(visit: Visit) -> Answer:
    """End the session."""
    if visit.session is not None:
        await visit.core.people.sign_out(visit.session)
    return Redirect("/sign-in", "signed_out", {SESSION: None})


async def act_in(visit: Visit) -> Answer:
    """Look at another tenant's payments, for the system's people."""
    if visit.session is None:
        raise Refusal("sign_in_refused", "sign in first")
    chosen = id_in(visit.form.get("tenant", ""))
    if chosen not in {tenant.id for tenant in visit.tenants}:
        raise Refusal("not_found", "there is no such tenant")
    await visit.core.people.act_in(visit.session, chosen)
    return Redirect("/intents")


def _issuer(visit: Visit) -> Issuer:
    if visit.core.issuer is None:
        raise Refusal("not_found", "no identity provider is set: FLEET_OIDC_ISSUER")
    return visit.core.issuer


def _return_address(visit: Visit) -> str:
    told = visit.core.settings.console_url.rstrip("/")
    return (told or f"http://{visit.request.headers.get('host', '')}") + _RETURN


def _begun(visit: Visit) -> Begun | None:
    """Return the sign-in that this browser began, as its own sealed cookie tells it."""
    cookies = Cookies(visit.core.settings.console_url.startswith("https://"))
    try:
        sealed = base64.urlsafe_b64decode(cookies.read(visit.request, SIGN_IN))
        return Begun(**json.loads(visit.core.worker_ports.vault.open_bytes(sealed, bound_to=_BOUND_TO)))
    except (VaultError, ValueError, TypeError, binascii.Error):
        return None


def _refused(error: IssuerError) -> Refusal:
    _log.warning("a sign-in failed: %s", error)
    return Refusal("sign_in_refused", str(error))


SCREENS = (
    Screen("GET", "/sign-in", sign_in_page, None),
    Screen("POST", "/sign-in", sign_in, None),
    Screen("GET", "/sign-in/issuer", to_issuer, None),
    Screen("GET", _RETURN, from_issuer, None),
    Screen("POST", "/sign-out", sign_out, Role.VIEWER),
    Screen("POST", "/tenant", act_in, Role.VIEWER),
)
