"""A signing client for tests: what a service would send, and what it should not."""

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson

from wire.signing import BODY_DIGEST_HEADER, signed_headers


class Signed:
    """Signs each request with one key."""

    def __init__(self, http: httpx.AsyncClient, key_id: str, secret: str, on_behalf_of: str | None = None) -> None:
        self.http, self.key_id, self.secret, self.on_behalf_of = http, key_id, secret, on_behalf_of

    async def post(self, path: str, body: Any, *, key: str | None = None, **changed: Any) -> httpx.Response:
        """POST a body: JSON of it, or its bytes as they are."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        # A body of any length is signed by what the header tells of it; no other route looks at it.
        headers = {"Content-Type": "application/json", BODY_DIGEST_HEADER: hashlib.sha256(raw).hexdigest()}
        headers |= self.headers("POST", path, raw, key=key, **changed)
        return await self.http.post(path, content=raw, headers=headers)

    async def put(self, path: str, body: Any) -> httpx.Response:
        """PUT a body as JSON."""
        raw = orjson.dumps(body)
        headers = {"Content-Type": "application/json"} | self.headers("PUT", path, raw)
        return await self.http.put(path, content=raw, headers=headers)

    async def delete(self, path: str) -> httpx.Response:
        """DELETE what a path names."""
        return await self.http.delete(path, headers=self.headers("DELETE", path, b""))

    async def get(self, path: str, **query: str | Sequence[str]) -> httpx.Response:
        """GET with a query; a sequence repeats its name."""
        text = urlencode(query, doseq=True)
        headers = self.headers("GET", path, b"", query=text)
        return await self.http.get(f"{path}?{text}" if text else path, headers=headers)

    def headers(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        query: str = "",
        age_s: int = 0,
        nonce: str | None = None,
        key: str | None = None,
    ) -> dict[str, str]:
        """Return the four headers, and the idempotency key's; `age_s` shifts the timestamp into the past."""
        return signed_headers(
            method=method,
            path=path,
            query=query,
            body=body,
            key_id=self.key_id,
            secret=self.secret,
            timestamp=int(time.time()) - age_s,
            nonce=nonce or secrets.token_urlsafe(12),
            on_behalf_of=self.on_behalf_of,
            idempotency_key=key,
        )
