"""An OpenID Connect provider over HTTP: discovery, authorization code with PKCE, tokens checked against its keys."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from core.services.access.identity import Begun, IssuerError

_ALGORITHMS: Final = ["RS256", "PS256", "ES256", "EdDSA"]
"""Signatures by a private key alone: neither `none` nor anything that a client's secret could make."""
_FRESH_S: Final = 300
_ASK_AGAIN_S: Final = 10
"""An unknown key makes us read the provider's keys again, at most this often."""
_CLOCK_LEEWAY_S: Final = 60
_TIMEOUT_S: Final = 10
_SCOPE: Final = "openid profile email"


class HttpIssuer:
    """See `core.services.access.identity.Issuer`. Discovery and keys are kept for minutes."""

    def __init__(self, issuer: str, client_id: str, client_secret: str, *, api_audience: str = "") -> None:
        self._issuer, self._client_id, self._client_secret = issuer, client_id, client_secret
        self._api_audience = api_audience
        self._discovered: Mapping[str, Any] | None = None
        self._keys: KeySet | None = None
        self._read_at_s = 0.0
        self._reading = asyncio.Lock()

    async def begin(self, redirect_uri: str) -> Begun:
        """Return where to send the browser."""
        document, _ = await self._document()
        nonce, verifier, state = secrets.token_urlsafe(24), secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        url = prepare_grant_uri(
            document["authorization_endpoint"],
            self._client_id,
            "code",
            redirect_uri,
            _SCOPE,
            state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        return Begun(url, state, nonce, verifier)

    async def finish(self, redirect_uri: str, code: str, begun: Begun) -> Mapping[str, Any]:
        """Redeem the code and return the claims of the id token; its nonce must be the one that we sent."""
        document, _ = await self._document()
        sent = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": begun.verifier,
            "redirect_uri": redirect_uri,
        }
        public = {} if self._client_secret else {"client_id": self._client_id}
        named = httpx.BasicAuth(quote(self._client_id), quote(self._client_secret))
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT_S) as http:
                answer = await http.post(
                    document["token_endpoint"], data=sent | public, auth=named if self._client_secret else httpx.Auth()
                )
                token = answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise IssuerError(f"the identity provider did not take the code: {type(error).__name__}") from error
        id_token = token.get("id_token") if isinstance(token, dict) else None
        if not isinstance(id_token, str):
            raise IssuerError("the identity provider gave no id token")
        claims = await self._checked(id_token, self._client_id)
        if not secrets.compare_digest(str(claims.get("nonce", "")), begun.nonce):
            raise IssuerError("the id token is not of this sign-in")
        return claims

    async def bearer(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a bearer token whose audience is the API."""
        if not self._api_audience:
            raise IssuerError("no audience of bearer tokens is set: FLEET_OIDC_API_AUDIENCE")
        claims = await self._checked(token, self._api_audience)
        # A sign-in's token has a nonce; it proves who somebody is to the console, and opens nothing else.
        if "nonce" in claims:
            raise IssuerError("an id token is no access token")
        return claims

    async def _checked(self, token: str, audience: str) -> Mapping[str, Any]:
        try:
            decoded = await self._decoded(token)
            jwt.JWTClaimsRegistry(
                leeway=_CLOCK_LEEWAY_S,
                iss={"essential": True, "value": self._issuer},
                aud={"essential": True, "value": audience},
                exp={"essential": True},
                sub={"essential": True},
            ).validate(decoded.claims)
        except (JoseError, ValueError) as error:
            raise IssuerError(f"the token is not valid here: {type(error).__name__}") from error
        return decoded.claims

    async def _decoded(self, token: str) -> jwt.Token:
        _, keys = await self._document()
        try:
            return jwt.decode(token, keys, algorithms=_ALGORITHMS)
        except (JoseError, ValueError):
            if time.monotonic() - self._read_at_s < _ASK_AGAIN_S:
                raise
            # The provider may have changed its keys since we read them.
            _, keys = await self._document(fresh_s=_ASK_AGAIN_S)
            return jwt.decode(token, keys, algorithms=_ALGORITHMS)

    async def _document(self, fresh_s: int = _FRESH_S) -> tuple[Mapping[str, Any], KeySet]:
        async with self._reading:
            if self._discovered is None or self._keys is None or time.monotonic() - self._read_at_s >= fresh_s:
                self._discovered, self._keys = await self._read()
                self._read_at_s = time.monotonic()
            return self._discovered, self._keys

    async def _read(self) -> tuple[Mapping[str, Any], KeySet]:
        address = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT_S) as http:
                found = (await http.get(address)).raise_for_status().json()
                if not isinstance(found, dict) or found.get("issuer") != self._issuer:
                    raise IssuerError("the identity provider calls itself otherwise than FLEET_OIDC_ISSUER does")
                for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                    if urlsplit(str(found.get(name, ""))).scheme not in ("https", urlsplit(self._issuer).scheme):
                        raise IssuerError(f"the identity provider's {name} is no address to trust")
                keys = KeySet.import_key_set((await http.get(found["jwks_uri"])).raise_for_status().json())
        except (httpx.HTTPError, ValueError, KeyError, TypeError, JoseError) as error:
            raise IssuerError(f"the identity provider is away: {type(error).__name__}") from error
        return found, keys
