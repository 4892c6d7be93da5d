"""An OpenID Connect provider on loopback: real HTTP, real keys, PKCE checked; tests tell it whom it vouches for."""

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlencode

from fastapi import FastAPI, Request
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.responses import JSONResponse, RedirectResponse, Response

from wire.listener import listener

CLIENT_ID, CLIENT_SECRET, AUDIENCE = "console", "a secret of the console's", "psp-fleet-api"


@cache
def _first_key() -> RSAKey:
    """Return the key of every provider at its start; finding its primes takes longer than most tests."""
    return RSAKey.generate_key(2048, {"kid": "first"})


@dataclass
class LocalIssuer:
    """The provider; what it says can be changed between two sign-ins."""

    url: str = ""
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "1", "preferred_username": "anna"})
    changed: dict[str, Any] = field(default_factory=dict)
    """Claims of an id token that a provider gone wrong would write otherwise."""
    key: RSAKey = field(default_factory=_first_key)
    signs_with: RSAKey | None = None
    redeemed: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def rotate(self) -> None:
        """Sign with a new key, and publish that alone."""
        self.key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4)})

    def token(self, **claims: Any) -> str:
        """Return a signed token of the person; claims that are None are left out."""
        now = int(time.time())
        told = {"iss": self.url, "aud": AUDIENCE, "iat": now, "exp": now + 300} | self.person | claims
        header = {"alg": "RS256", "kid": self.key.kid}
        return jwt.encode(header, {k: v for k, v in told.items() if v is not None}, self.signs_with or self.key)

    def app(self) -> FastAPI:
        """Return its application."""
        app = FastAPI(openapi_url=None)
        app.add_api_route("/.well-known/openid-configuration", self._discovery)
        app.add_api_route("/keys", self._keys)
        app.add_api_route("/authorize", self._authorize)
        app.add_api_route("/token", self._token, methods=["POST"])
        return app

    async def _discovery(self) -> Response:
        return JSONResponse(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
            }
        )

    async def _keys(self) -> Response:
        return JSONResponse(KeySet([self.key]).as_dict(private=False))

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert (asked["client_id"], asked["response_type"]) == (CLIENT_ID, "code")
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_urlsafe(12)
        self.codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"]})
        return RedirectResponse(f"{asked['redirect_uri']}?{back}", 302)

    async def _token(self, request: Request) -> Response:
        given = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        basic = base64.b64decode(request.headers.get("authorization", "").removeprefix("Basic ")).decode()
        asked = self.codes.pop(given["code"], None)
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        right = (
            asked is not None
            and basic == f"{CLIENT_ID}:{'a%20secret%20of%20the%20console%27s'}"
            and challenge == asked["code_challenge"]
            and given["redirect_uri"] == asked["redirect_uri"]
        )
        if asked is None or not right:
            return JSONResponse({"error": "invalid_grant"}, 400)
        self.redeemed.append(given["code"])
        claims = {"aud": CLIENT_ID, "nonce": asked["nonce"]} | self.changed
        return JSONResponse({"access_token": "unused", "token_type": "Bearer", "id_token": self.token(**claims)})


@asynccontextmanager
async def local_issuer() -> AsyncIterator[LocalIssuer]:
    """Serve a provider until the end."""
    issuer = LocalIssuer()
    server = listener(issuer.app(), "127.0.0.1", 0, 5)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - the server offers nothing to wait for
        await asyncio.sleep(0.01)
    issuer.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield issuer
    finally:
        server.should_exit = True
        await task
