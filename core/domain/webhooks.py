"""Webhooks out: which addresses may be called, when a delivery is tried again, and when it is given up. Pure."""

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

_TRANSLATED: Final = tuple(ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"))
"""IPv6 addresses that stand for an IPv4 one, which a gateway would call: private ones too."""


class UrlRefusedError(ValueError):
    """No webhook is sent there; the text says why."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Waits between attempts, in seconds: the first one, four times as long each time, up to the longest."""

    first_s: int = 5
    longest_s: int = 43_200
    attempts_max: int = 14

    def wait_s(self, attempts: int, draw: float, told_s: int | None = None) -> float | None:
        """Return how long to wait after this many attempts; None: give up.

        `draw` in [0, 1) spreads waits over ±20 %, so that what failed together does not come back together. A
        receiver that names a longer wait is obeyed, up to the longest.
        """
        if attempts >= self.attempts_max:
            return None
        planned_s: int = min(self.first_s * 4 ** (attempts - 1), self.longest_s)
        if told_s is not None:
            planned_s = max(planned_s, min(told_s, self.longest_s))
        return planned_s * (0.8 + 0.4 * draw)  # seconds


def check_url(url: str, *, private: bool) -> tuple[str, int]:
    """Return host and port. Raises UrlRefusedError; `private` lets a developer's own machine receive.

    What a name stands for is checked when it is called: it may change after this.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UrlRefusedError(f"the URL cannot be read: {error}") from error
    if parts.scheme != "https" and not (private and parts.scheme == "http"):
        raise UrlRefusedError("the URL should begin with https://")
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise UrlRefusedError("the URL should name a host, in ASCII")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise UrlRefusedError("the URL should hold no credentials and no fragment")
    if port == 0:
        raise UrlRefusedError("port 0 cannot be called")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        check_address(str(literal), private=private)
    return host, port or (443 if parts.scheme == "https" else 80)


def check_address(text: str, *, private: bool) -> None:
    """Raise UrlRefusedError unless the address is one of the public internet."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise UrlRefusedError(f"{text} is no address") from error
    if private:
        return
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _TRANSLATED) or address.teredo is not None:
            raise UrlRefusedError(f"{text} stands for another address")
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
    if not address.is_global or address.is_multicast or address.is_reserved:
        raise UrlRefusedError(f"{text} is not an address of the public internet")
