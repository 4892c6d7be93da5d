"""Registers, comparisons, reports and breaks over HTTP, under a key of the system's own and under a tenant's."""

import hashlib
import secrets
import time
import tracemalloc
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import httpx
import orjson
import pytest

from core.domain.context import Context
from core.services.recon.mappings import shipped_mapping
from fleet.cli.output import ExitCode
from tests.integration.api.conftest import World
from tests.support.commands import SETTINGS, fleet_command
from tests.support.live_api import serving
from tests.support.signed import Signed
from wire.signing import signed_headers

DAY = "2026-11-20"
MAPPING = shipped_mapping("ipps").model_dump(mode="json")
HEADER = "PSP Transaction Id,Client Reference,Type,Amount,Fee,Status,Transaction Time\n"
FILE = (
    HEADER + 'PX1,=cmd(),TRANSFER,"1,234.56",0.00,SUCCEEDED,20/11/2026 10:00:00\n'
    "QX2,REF-2,QR_PAYMENT,20.00,1.50,SUCCEEDED,20/11/2026 11:00:00\n"
    "QX2,REF-2,QR_PAYMENT,20.00,1.50,SUCCEEDED,20/11/2026 11:00:00\n"
)
ASKED = {"rail": "promptpay", "business_day": DAY}


def brought(text: str = FILE, **more: Any) -> dict[str, Any]:
    return {"mapping": MAPPING, "content": b64encode(text.encode()).decode(), "name": "settlement.csv"} | more


@pytest.fixture
async def clerk(world: World) -> Signed:
    """A key of the system's own that names RECONCILIATION."""
    root = Context(UUID(int=0), "test")
    key = await world.core.keys.create(root, tenant_id=UUID(int=0), name="clerk", operations=["RECONCILIATION"])
    return Signed(world.api.http, key.id, key.secret)


async def test_a_file_is_read_kept_shown_compared_and_reported(world: World, clerk: Signed) -> None:
    dry = (await clerk.post("/v1/registers", brought())).json()
    assert (dry["lines"], dry["days"], dry["sums_minor"]) == (3, [DAY], {"out_THB": 123_456, "in_THB": 4_000})
    assert dry["kept"] is None
    assert (await clerk.get("/v1/registers")).json() == {"items": [], "next_cursor": None, "awaited": []}
    kept = (await clerk.post("/v1/registers", brought(apply=True))).json()["kept"]
    assert (kept["state"], kept["lines"], kept["source"], kept["name"]) == ("COMPLETE", 3, "IMPORTED", "settlement.csv")
    assert (await clerk.post("/v1/registers", brought(apply=True))).json()["kept"]["id"] == kept["id"]
    (listed,) = (await clerk.get("/v1/registers", rail="promptpay", day=DAY)).json()["items"]
    shown = (await clerk.get(f"/v1/registers/{listed['id']}")).json()
    counts = [(x["direction"], x["count"], x["amount_minor"], x["fee_minor"]) for x in shown["counts"]]
    assert counts == [("IN", 2, 4_000, 300), ("OUT", 1, 123_456, 0)]
    original = await clerk.post(f"/v1/registers/{kept['id']}/original", {})
    assert (original.content, original.headers["content-type"]) == (FILE.encode(), "application/octet-stream")

    recent = (datetime.now(UTC).date() - timedelta(days=2)).isoformat()
    assert (await clerk.post("/v1/registers:fetch", ASKED | {"business_day": recent})).json() == {"accounts": 1}
    (awaited,) = (await clerk.get("/v1/registers")).json()["awaited"]
    assert (awaited["rail"], awaited["business_day"], awaited["age_s"] < 60) == ("promptpay", recent, True)
    (run,) = (await clerk.post("/v1/recon/runs", ASKED)).json()["items"]
    counted = {each["match"]: each["count"] for each in run["tallies"]}
    assert (counted, run["breaks"]) == ({"missing_here": 2, "duplicate": 1}, 3)
    runs = (await clerk.get("/v1/recon/runs", first_day=DAY, last_day=DAY, rail="promptpay")).json()["items"]
    assert [each["id"] for each in runs] == [run["id"]]
    assert (await clerk.get(f"/v1/recon/runs/{run['id']}")).json()["carried"] == []
    await breaks_come_in_pages(clerk)
    await reports_come_as_asked(clerk)
    acts = [
        (row["action"], row["actor"])
        for row in await world.admin.fetch("SELECT action, actor FROM fleet.audit_entries")
    ]
    for action in ("register_received", "register_original_read", "register_wanted", "reconciled"):
        assert (action, f"key:{clerk.key_id}") in acts, action


async def breaks_come_in_pages(clerk: Signed) -> None:
    """Each page goes on where the one before ended, within what was asked for."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await clerk.get("/v1/breaks", limit="1", rail="promptpay", day=DAY, **cursor)).json()
        found += [each["kind"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert sorted(found) == ["register_duplicate", "register_missing_here", "register_missing_here"]
    assert (await clerk.get("/v1/breaks", rail="noop", state="ALL")).json()["items"] == []
    assert (await clerk.get("/v1/breaks", cursor="eA")).json()["code"] == "cursor_malformed"


async def reports_come_as_asked(clerk: Signed) -> None:
    """By `format`, by `Accept`, and of a day or a week."""
    page = await clerk.get("/v1/recon/report", week="2026-W47", format="html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")
    signed = clerk.headers("GET", "/v1/recon/report", b"", query="week=2026-W47")
    table = await clerk.http.get("/v1/recon/report?week=2026-W47", headers=signed | {"Accept": "text/csv, */*"})
    assert table.text.splitlines()[1].startswith("run,")
    document = (await clerk.get("/v1/recon/report", day=DAY)).json()
    assert [each["business_day"] for each in document["runs"]] == [DAY]
    for query in ({"week": "2026-W99"}, {"week": "47"}, {"day": DAY, "week": "2026-W47"}):
        refused = await clerk.get("/v1/recon/report", **query)
        assert (refused.status_code, refused.json()["field"]) == (422, "week"), query


@pytest.mark.parametrize(
    ("text", "more", "code"),
    [
        (HEADER.replace("Fee", "Toll"), {}, "file_refused"),
        (HEADER, {"apply": True}, "day_missing"),
        (FILE + FILE.splitlines()[1].replace("20/11", "21/11"), {"apply": True}, "day_missing"),
        (FILE, {"mapping": {"rail": "promptpay"}}, "invalid_request"),
        (FILE, {"content": "*"}, "invalid_request"),
        (FILE, {"content": "/w=="}, "file_refused"),
    ],
)
async def test_a_file_that_cannot_be_a_register_is_refused(
    clerk: Signed, text: str, more: dict[str, Any], code: str
) -> None:
    answer = await clerk.post("/v1/registers", brought(text, **more))
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert (await clerk.get("/v1/registers")).json()["items"] == []


async def test_a_wrong_line_is_told_by_its_number_and_nothing_is_kept(clerk: Signed) -> None:
    wrong = FILE + "PX4,REF-4,TRANSFER,1.005,0.00,SUCCEEDED,20/11/2026 12:00:00\n"
    told = (await clerk.post("/v1/registers", brought(wrong, apply=True))).json()
    assert ([each["line"] for each in told["refused"]], told["kept"]) == ([5], None)
    assert (await clerk.get("/v1/registers")).json()["items"] == []
    assert (await clerk.post("/v1/recon/runs", ASKED)).json()["code"] == "not_found"


UPLOAD = "/v1/registers:upload"


async def upload(clerk: Signed, content: bytes, told: str | None = None, **query: str) -> httpx.Response:
    """Send a file as the body, in pieces, signed over its SHA-256."""
    text = urlencode(sorted(query.items()))
    digest = told or hashlib.sha256(content).hexdigest()
    headers = signed_headers(
        method="POST", path=UPLOAD, query=text, key_id=clerk.key_id, secret=clerk.secret,
        timestamp=int(time.time()), nonce=secrets.token_urlsafe(16), digest=digest,
    )  # fmt: skip

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 65_536):
            yield content[at : at + 65_536]

    return await clerk.http.post(f"{UPLOAD}?{text}", content=pieces(), headers=headers)


async def test_a_file_of_more_than_eight_mebibytes_is_taken_as_it_comes_in_flat_memory(clerk: Signed) -> None:
    note = "n" * 600
    rows = (f"PX{n},REF-{n},TRANSFER,1.00,0.00,SUCCEEDED,20/11/2026 10:00:00,{note}" for n in range(15_000))
    content = "\n".join((HEADER.strip() + ",Note", *rows)).encode()
    assert len(content) > 9 << 20
    asked = {"provider": "ipps", "business_day": DAY, "name": "long.csv"}
    dry = (await upload(clerk, content, **asked)).json()
    assert (dry["lines"], dry["sums_minor"], dry["kept"]) == (15_000, {"out_THB": 1_500_000}, None)
    tracemalloc.start()
    try:
        kept = (await upload(clerk, content, apply="true", **asked)).json()["kept"]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (kept["state"], kept["lines"], kept["file_hash"]) == (
        "COMPLETE", 15_000, hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    assert peak < 6 << 20, peak
    original = await clerk.post(f"/v1/registers/{kept['id']}/original", {})
    assert original.content == content


async def test_an_upload_is_refused_where_its_bytes_its_mapping_or_its_length_are_not_as_they_should_be(
    world: World, clerk: Signed, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, asked = FILE.encode(), {"provider": "ipps", "apply": "true"}
    refusals = [
        (await upload(clerk, content + b"x", hashlib.sha256(content).hexdigest(), **asked), "unauthenticated"),
        (await clerk.http.post(UPLOAD, content=content), "unauthenticated"),
        (await clerk.post(UPLOAD, brought()), "invalid_request"),
        (await upload(clerk, content, apply="true"), "invalid_request"),
        (await upload(clerk, content, provider="nobody"), "invalid_request"),
        (await upload(clerk, content, mapping="{}"), "invalid_request"),
        (await upload(clerk, b"\xff\xfe", **asked), "file_refused"),
        (await upload(clerk, HEADER.encode(), **asked), "day_missing"),
        (await upload(await world.other(operations=["RECONCILIATION"]), content, **asked), "operation_not_permitted"),
    ]
    monkeypatch.setitem(world.core.settings.__dict__, "register_file_max_bytes", len(content) - 1)
    refusals.append((await upload(clerk, content, **asked), "body_too_large"))
    assert [answer.json()["code"] for answer, _ in refusals] == [code for _, code in refusals]
    assert (await clerk.get("/v1/registers")).json()["items"] == []
    monkeypatch.setitem(world.core.settings.__dict__, "register_file_max_bytes", len(content))
    mapping = orjson.dumps(MAPPING).decode()
    assert (await upload(clerk, content, mapping=mapping, apply="true")).json()["kept"]["lines"] == 3


async def test_registers_are_no_tenants_and_no_other_keys(world: World, clerk: Signed) -> None:
    some = str(uuid4())
    tenants, nameless = await world.other(operations=["RECONCILIATION"]), world.api
    routes: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/v1/registers", {}), ("GET", f"/v1/registers/{some}", {}),
        ("POST", f"/v1/registers/{some}/original", {}), ("POST", "/v1/registers", brought()),
        ("POST", "/v1/registers:fetch", ASKED), ("GET", "/v1/recon/runs", {}),
        ("GET", f"/v1/recon/runs/{some}", {}), ("POST", "/v1/recon/runs", ASKED),
        ("POST", "/v1/recon/books", {"what": "intents"}), ("GET", "/v1/recon/report", {}),
    ]  # fmt: skip
    for method, path, body in routes:
        for key in (tenants, nameless):
            answer = await (key.get(path) if method == "GET" else key.post(path, body))
            assert (answer.status_code, answer.json()["code"]) == (403, "operation_not_permitted"), (path, answer.text)
        allowed = await (clerk.get(path) if method == "GET" else clerk.post(path, body))
        assert allowed.status_code in (200, 404), (path, allowed.text)


async def test_the_commands_go_over_the_api_where_no_database_is_named(
    world: World, clerk: Signed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLEET_STACK", str(tmp_path / "absent.json"))
    file, copy, page = tmp_path / "settlement.csv", tmp_path / "copy.csv", tmp_path / "day.html"
    file.write_text(FILE, encoding="utf-8")
    fleet = fleet_command(capsys, monkeypatch)
    async with serving(world.core) as url:
        for name, value in (("FLEET_URL", url), ("FLEET_KEY_ID", clerk.key_id), ("FLEET_KEY_SECRET", clerk.secret)):
            monkeypatch.setenv(name, value)
        kept = (await fleet("recon", "import", str(file), "--provider", "ipps", "--apply", "--json")).document
        assert (kept["state"], kept["lines"], kept["business_day"]) == ("COMPLETE", 3, DAY)
        assert (await fleet("recon", "original", kept["id"], "--out", str(copy))).code == ExitCode.DONE
        assert copy.read_bytes() == FILE.encode()
        (listed,) = (await fleet("recon", "registers", "--day", DAY, "--json")).document
        shown = (await fleet("recon", "register", listed["id"], "--json")).document
        assert [each["count"] for each in shown["counts"]] == [2, 1]
        assert (await fleet("recon", "fetch", "--rail", "promptpay", "--day", DAY)).code == ExitCode.DONE
        ran = await fleet("recon", "run", "--rail", "promptpay", "--day", DAY, "--json")
        assert (ran.code, ran.document[0]["breaks"]) == (ExitCode.CHECK_FAILED, 3)
        (view,) = (await fleet("recon", "show", "--day", DAY, "--json")).document
        assert (view["run"]["id"], view["run"]["run_by"]) == (ran.document[0]["id"], f"key:{clerk.key_id}")
        for listing in (("breaks",), ("registers",), ("show", "--day", DAY)):
            (await fleet("recon", *listing, "--rail", "nope")).must_fail(ExitCode.REFUSED, "not_found")
        found = (await fleet("recon", "breaks", "--rail", "promptpay", "--json")).document
        assert len(found) == 3
        dry = await fleet("recon", "resolve", found[0]["id"], "--reason", "the provider's mistake", "--json")
        about = dry.document["break"]
        assert (dry.document["dry_run"], about["kind"], about["amount_minor"]) == (
            True, found[0]["kind"], found[0]["amount_minor"],
        )  # fmt: skip
        assert (about["state"], about["entries"], about["needs_approval"]) == ("OPEN", [], True)
        shown = await fleet("recon", "resolve", found[0]["id"], "--reason", "the provider's mistake")
        assert "no entry puts it right" in shown.out
        assert found[0]["detail"].split(":")[0] in shown.out
        assert "nothing was changed" in shown.out
        unproposed = await fleet("recon", "approve", found[0]["id"], "--json")
        assert unproposed.document["break"]["state"] == "OPEN"
        written = await fleet("recon", "report", "--format", "html", "--week", "2026-W47", "--out", str(page))
        assert (written.code, page.read_text()[:15]) == (ExitCode.DONE, "<!doctype html>")
        for what in ("ledger", "intents"):
            assert (await fleet("recon", what, "--json")).document["what"] == what
        missing = await fleet("recon", "run", "--rail", "sbp", "--day", DAY)
        missing.must_fail(ExitCode.REFUSED, "not_found")
