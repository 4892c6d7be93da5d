"""The style sheet and the script: our own, served from this process."""

from functools import cache
from importlib.resources import files
from typing import Final

from core.console.visit import Answer, Asset, Screen, Visit
from core.services.problems import Refusal

_KINDS: Final = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


async def asset(visit: Visit) -> Answer:
    """Return a file of the console."""
    name = str(visit.request.path_params["name"])
    if name not in _KINDS:
        raise Refusal("not_found", "there is no such file")
    return Asset(_read(name), _KINDS[name])


@cache
def _read(name: str) -> bytes:
    return (files("core.console") / "static" / name).read_bytes()


SCREENS = (Screen("GET", "/static/{name}", asset, None),)
