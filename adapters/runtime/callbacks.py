"""The receiver of callbacks: bounded, from where the provider is, genuine, fresh; kept by the core before it says 2xx.

Providers repeat what is not answered by 2xx, and stop repeating what is: nothing is acknowledged before PostgreSQL
holds the raw bytes and the core has taken the facts. What is refused says nothing about why, beside its status.
"""

import hashlib
import hmac
import ipaddress
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web
from prometheus_client import Counter

from adapters.runtime.core_client import CoreRefusedError, CoreUnavailableError, EvidencePort, PaymentsPort
from adapters.runtime.port import Callback, ReceivesCallbacks, Verified
from schemas.collections import ProviderPayment, ProviderPaymentBatch
from schemas.ids import mint_id
from schemas.rails import EvidenceItem

log = logging.getLogger(__name__)

CALLBACKS: Final = Counter("fleet_adapter_callbacks_total", "Callbacks of a provider.", ["rail", "outcome"])
_SEEN: Final = 10_000
"""Events remembered in this process; the core remembers all of them."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_WITH_PORT: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", re.ASCII)


class CallbackRefused(Exception):  # noqa: N818 - named by outcome
    """Not the provider's, or not fit to be taken; `status` is what the sender is answered."""

    def __init__(self, code: str, status: int = 401) -> None:
        super().__init__(code)
        self.code, self.status = code, status


class CallbackPort(EvidencePort, PaymentsPort, Protocol):
    """Where callbacks go: the core keeps their bytes and takes their facts."""


@dataclass(frozen=True, slots=True)
class CallbackSettings:
    """What is let in. Sizes are bytes, durations seconds."""

    rail: str
    max_body_bytes: int = 64 * 1024
    window_s: int = 300
    """How far a signed time may be from ours; at most 64,000 bytes of a body are kept as evidence."""
    allowed: Sequence[Network] = ()
    """Where callbacks may come from; nothing named means everywhere, which a signature must then carry alone."""
    trusted_proxies: Sequence[Network] = ()
    """Peers whose `X-Forwarded-For` is believed: its last address that is no such proxy is the sender."""


def check_hmac(secret: str, message: bytes, signature: str, *, digest: str = "sha256") -> None:
    """Raise CallbackRefused unless this is the hexadecimal HMAC of the message; compared in constant time."""
    expected = hmac.new(secret.encode(), message, digest).hexdigest().encode()
    if not hmac.compare_digest(expected, signature.strip().lower().encode("utf-8", "replace")):
        raise CallbackRefused("signature_invalid")


class CallbackReceiver:
    """Takes POST requests of one rail's provider, on a listener of its own."""

    def __init__(
        self,
        rail: ReceivesCallbacks,
        core: CallbackPort,
        settings: CallbackSettings,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._rail, self._core, self._own, self._now_s = rail, core, settings, now_s
        self._seen: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen on every path: the provider was given one, and the signature says whether it is the provider."""
        app = web.Application(client_max_size=self._own.max_body_bytes)
        app.router.add_route("POST", "/{path:.*}", self._receive)
        self._runner = web.AppRunner(app, access_log=None, auto_decompress=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        try:
            await self._take(request)
        except CallbackRefused as refused:
            CALLBACKS.labels(self._own.rail, refused.code).inc()
            log.warning("a callback was refused: %s", refused.code)
            return web.Response(status=refused.status)
        except (CoreUnavailableError, CoreRefusedError) as error:
            # Not acknowledged: the provider repeats it.
            CALLBACKS.labels(self._own.rail, "not_kept").inc()
            log.warning("a callback could not be kept: %s", type(error).__name__)
            return web.Response(status=503)
        return web.Response(status=200)

    async def _take(self, request: web.Request) -> None:
        sender = self._sender(request)
        if self._own.allowed and (sender is None or not _within(sender, self._own.allowed)):
            raise CallbackRefused("sender_not_allowed", 403)
        if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
            # What is signed is the bytes on the wire: unpacked, they are others.
            raise CallbackRefused("unsupported_encoding", 415)
        body = await self._body(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        verified = await self._rail.verify(Callback(body, headers, request.path))
        sent_at_s = verified.sent_at_s
        if sent_at_s is not None and abs(self._now_s() - sent_at_s) > self._own.window_s:
            raise CallbackRefused("stale")
        digest = hashlib.sha256(body).digest()
        event_id = verified.event_id or digest.hex()
        if (event_id, digest) in self._seen:
            CALLBACKS.labels(self._own.rail, "replayed").inc()
            return
        await self._keep(body, event_id, verified)
        self._remember((event_id, digest))

    async def _body(self, request: web.Request) -> bytes:
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise CallbackRefused("too_large", 413) from error

    async def _keep(self, body: bytes, event_id: str, verified: Verified) -> None:
        item = EvidenceItem(
            id=mint_id(time.time_ns() // 1_000_000),
            kind="callback",
            raw=body.decode(errors="backslashreplace")[:64_000],
        )
        await self._core.post_evidence([item])
        replayed = False
        if verified.facts:
            facts = [_with_evidence(fact, item) for fact in verified.facts]
            replayed = (await self._core.post_payments(ProviderPaymentBatch(event_id=event_id, facts=facts))).replayed
        CALLBACKS.labels(self._own.rail, "replayed" if replayed else "taken").inc()

    def _remember(self, event: tuple[str, bytes]) -> None:
        self._seen[event] = None
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)

    def _sender(self, request: web.Request) -> Address | None:
        """Return whose request it is: the peer's, unless that is a proxy of ours, which tells whom it speaks for."""
        peer = address_of(request.remote or "")
        if peer is None or not _within(peer, self._own.trusted_proxies):
            return peer
        told = [each.strip() for each in ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")]
        for each in reversed([each for each in told if each]):
            address = address_of(each)
            if address is None or not _within(address, self._own.trusted_proxies):
                return address  # what is no address ends the search: whoever stands before it is only said to be there
        return None


def _with_evidence(fact: ProviderPayment, item: EvidenceItem) -> ProviderPayment:
    return fact.model_copy(update={"evidence_id": item.id})


def address_of(told: str) -> Address | None:
    """Return the address that a front tells, with its port or without; None for what is none.

    An IPv4 address within IPv6 (`::ffff:203.0.113.7`), as sockets of both kinds tell it, is the IPv4 address.
    """
    found = _WITH_PORT.fullmatch(told.strip('"'))
    try:
        address = ipaddress.ip_address(found[1] or found[2] if found else told.strip('"'))
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
