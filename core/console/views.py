"""How things look in HTML: the templates, and the few filters that they share. Everything is escaped."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from core.domain.roles import Role
from schemas.money import AmountError, currency_of

TOLD: Final = {
    "signed_out": "You are signed out.",
    "redrive_asked": "The redrive was taken. Watch it below.",
    "approved": "Approved.",
    "rejected": "Rejected.",
    "cancelled": "Cancelled: nothing further is acted upon.",
    "decided": "Decided.",
    "assigned": "The money was given to the wallet.",
    "returning": "The money is on its way back to who paid it.",
    "asked_second": "Noted. The money is held until a second person approves it under Reviews.",
    "paused": "Paused: no first permits are given.",
    "resumed": "Resumed: what waited got its time back.",
    "released": "Given back: any other consumer takes it now. What is still held is below.",
    "claimed": "Handed over: the other consumer meets it when it starts.",
    "rebuilt": "What had no entry is in the outbox again, under its own id.",
    "tidied": "Trimmed: what is finished is gone, and so are silent consumers that held nothing.",
    "owner_set": "The break has an owner.",
    "alert_closed": "Closed.",
    "alert_waits": "Noted: the alert is closed once a second person agrees.",
    "alert_open": "The alert stays open.",
    "resolved": "The break's way out is noted.",
    "register_kept": "The file is kept as the register of its day. Compare the day to see what fits.",
    "register_waits": "The day was fetched: this file counts once a second person, an approver, brings the same one.",
    "compared": "Compared. What does not fit is below.",
    "wanted": "The adapter is asked for the register; it is listed below once it has come.",
    "person_added": "The person may sign in now.",
    "person_changed": "Changed; it counts from their next click.",
    "proved": "The chains hold.",
}
"""Sentences for the top of a page, by the name that an address may carry: no address can bring words of its own."""
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


def environment() -> Environment:
    """Return the templates."""
    made = Environment(
        loader=PackageLoader("core.console"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"money": money, "age": age, "moment": moment, "words": words, "pretty": pretty, "actor": actor}
    made.globals |= {"Role": Role}
    return made


def money(amount_minor: int | None, currency: str = "") -> str:
    """Return `1,234.50 THB`, or the minor units of a currency that is not known."""
    if amount_minor is None:
        return ""
    try:
        digits = currency_of(currency).decimals
    except AmountError:
        return f"{amount_minor:,} minor units {currency}".rstrip()
    whole, part = divmod(abs(amount_minor), 10**digits)
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{whole:,}" + (f".{part:0{digits}d}" if digits else "") + f" {currency}"


def age(seconds: int | None) -> str:
    """Return a length of time in its two largest units."""
    if seconds is None:
        return ""
    seconds = max(0, int(seconds))
    if seconds < _MINUTE_S:
        return f"{seconds} s"
    if seconds < _HOUR_S:
        return f"{seconds // _MINUTE_S} min {seconds % _MINUTE_S} s"
    if seconds < _DAY_S:
        return f"{seconds // _HOUR_S} h {seconds % _HOUR_S // _MINUTE_S} min"
    return f"{seconds // _DAY_S} d {seconds % _DAY_S // _HOUR_S} h"


def moment(at: datetime | None) -> str:
    """Return a time in UTC, to the second."""
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def words(name: str) -> str:
    """Return a name of the code as words."""
    return name.replace("_", " ").lower()


def pretty(data: Mapping[str, Any]) -> str:
    """Return data as people read it."""
    return ", ".join(
        f"{name}: {json.dumps(value, default=str) if isinstance(value, dict | list) else value}"
        for name, value in data.items()
        if value is not None
    )


def actor(name: str | None) -> str:
    """Return who acted: a person by name, a key as it is."""
    return (name or "").removeprefix("person:")
