"""The service behind the front: says who a session is, and pays on that person's behalf with a key of its own.

    FRONT_SECRET=… SESSION_SECRET=… FLEET_KEY_ID=… FLEET_KEY_SECRET=… python examples/nginx-auth-request/front.py

A session here is a signed cookie; an SSO product has its own, and `/verify` is where it is asked. The core sees none of
this: it sees a signed request that names the user, and lets it touch that user's wallets alone.
"""

import hashlib
import hmac
import os
import re
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from pydantic import ValidationError

from fleet.client import FleetClient, Refused, Unreachable
from schemas.api import IntentRequest, OnBehalfOf

USER, AGENT, SECRET = "X-Sso-User", "X-Sso-Agent", "X-Front-Secret"
_SESSION = re.compile(r"([A-Za-z0-9._@-]{1,64}):([A-Za-z0-9._@-]{0,64}):([0-9]{1,12}):[0-9a-f]{64}", re.ASCII)
FLEET: web.AppKey[FleetClient] = web.AppKey("fleet", FleetClient)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def session(user: str, agent: str, ends_at: int, secret: str) -> str:
    """Return the value of a session cookie: a user, who acts for the user (or nothing), an end in epoch seconds."""
    told = f"{user}:{agent}:{ends_at}"
    return f"{told}:{hmac.new(secret.encode(), told.encode(), hashlib.sha256).hexdigest()}"


def person_of(cookie: str, secret: str, now_s: int) -> tuple[str, str] | None:
    """Return user and agent of a session that holds now; None where it does not."""
    told = _SESSION.fullmatch(cookie)
    if told is None:
        return None
    user, agent, ends_at = told[1], told[2], int(told[3])
    genuine = hmac.compare_digest(session(user, agent, ends_at, secret), cookie)
    return (user, agent) if genuine and now_s < ends_at else None


def front(fleet: FleetClient, front_secret: str, session_secret: str) -> web.Application:
    """Return the service: `/verify` for the front, and `/transfers` for people."""

    @web.middleware
    async def through_the_front_alone(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not hmac.compare_digest(request.headers.get(SECRET, "").encode(), front_secret.encode()):
            raise web.HTTPForbidden(text="come through the front")
        return await handler(request)

    async def verify(request: web.Request) -> web.Response:
        person = person_of(request.cookies.get("session", ""), session_secret, int(time.time()))
        if person is None:
            raise web.HTTPUnauthorized
        user, agent = person
        return web.Response(status=204, headers={USER: user} | ({AGENT: agent} if agent else {}))

    app = web.Application(middlewares=[through_the_front_alone])
    app[FLEET] = fleet
    app.router.add_get("/verify", verify)
    app.router.add_post("/transfers", transfer)
    return app


async def transfer(request: web.Request) -> web.Response:
    """Move money out of a wallet of the person whom the front named; the body has no say in who that is."""
    body = await request.json()
    try:
        asked = IntentRequest(
            operation="INTERNAL_P2P",
            wallet_id=body["wallet_id"],
            counterparty_wallet_id=body["to_wallet_id"],
            amount_minor=body["amount_minor"],
            currency=body["currency"],
            on_behalf_of=OnBehalfOf(user=request.headers[USER], agent=request.headers.get(AGENT) or None),
        )
        paid = await request.app[FLEET].create_intent(asked, idempotency_key=request.headers["Idempotency-Key"])
    except (KeyError, ValidationError) as error:
        raise web.HTTPUnprocessableEntity(text=type(error).__name__) from error
    except Refused as error:
        return web.json_response(text=error.problem.model_dump_json(), status=error.problem.status)
    except Unreachable as error:
        raise web.HTTPServiceUnavailable(text="repeat under the same Idempotency-Key") from error
    return web.json_response(text=paid.model_dump_json(), status=201)


async def _open() -> web.Application:
    env = os.environ
    fleet = FleetClient(
        env.get("FLEET_URL", "http://127.0.0.1:8080"), key_id=env["FLEET_KEY_ID"], secret=env["FLEET_KEY_SECRET"]
    )
    return front(fleet, env["FRONT_SECRET"], env["SESSION_SECRET"])


if __name__ == "__main__":
    web.run_app(_open(), host="127.0.0.1", port=8481)
