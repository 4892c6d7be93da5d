"""A browser without script or pictures: keeps cookies, follows links and sends the forms that a page has."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx


@dataclass
class Form:
    """One form of a page."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(given.get("method", "get"), given.get("action", "")))
        elif self.forms and tag == "input" and "name" in given:
            self.forms[-1].fields[given["name"]] = given.get("value", "")
        elif self.forms and tag == "select":
            self._select = given["name"]
        elif self.forms and tag == "option" and self._select and ("selected" in given or "value" in given):
            if "selected" in given or self._select not in self.forms[-1].fields:
                self.forms[-1].fields[self._select] = given.get("value", "")
        elif self.forms and tag == "button" and "formaction" in given:
            self.forms[-1].actions.append(given["formaction"])


class Browser:
    """One person's browser at one console."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.page: httpx.Response = httpx.Response(204)

    async def open(self, address: str, **query: Any) -> httpx.Response:
        """Open an address and follow redirects."""
        self.page = await self.http.get(address, params=query or None, follow_redirects=True)
        return self.page

    @property
    def text(self) -> str:
        """The page as it reads: without tags, each run of blanks as one."""
        return " ".join(re.sub(r"<[^>]+>", " ", self.page.text).split())

    def form(self, action: str) -> Form:
        """Return the form of the page that goes to this address, by itself or by one of its buttons."""
        parser = _Forms()
        parser.feed(self.page.text)
        for each in parser.forms:
            if action in (each.action, *each.actions):
                return each
        raise AssertionError(f"no form goes to {action}: {[each.action for each in parser.forms]}")

    async def send(self, action: str, **fields: str) -> httpx.Response:
        """Fill in the page's form and send it; follow where it leads."""
        form = self.form(action)
        values = form.fields | fields
        if form.method.lower() == "get":
            self.page = await self.http.get(action, params=values, follow_redirects=True)
        else:
            self.page = await self.http.post(action, data=values, follow_redirects=True)
        return self.page

    async def sign_in(self, name: str, password: str) -> httpx.Response:
        """Open the console and sign in."""
        await self.open("/sign-in")
        return await self.send("/sign-in", name=name, password=password)
