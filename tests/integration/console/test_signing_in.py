"""Sessions of the console: opened by a password, bound to a cookie, ended in every way that there is."""

import pytest

from core.domain.roles import Role
from tests.integration.console.conftest import PASSWORD, ConsoleWorld


async def test_a_right_password_opens_a_session_and_a_sign_out_ends_it(console: ConsoleWorld) -> None:
    browser = await console.person(Role.VIEWER)
    assert browser.page.status_code == 200
    assert "Is money safe?" in browser.text
    cookie = browser.http.cookies["fleet-session"]
    await browser.send("/sign-out")
    assert "You are signed out." in browser.text
    browser.http.cookies.set("fleet-session", cookie, domain="console.test")
    assert "Sign in" in (await browser.open("/dead-letters")).text
    kept = await console.world.admin.fetchval("SELECT count(*) FROM fleet.console_sessions")
    assert kept == 0


async def test_a_wrong_password_and_an_unknown_name_read_alike_and_have_to_wait_alike(console: ConsoleWorld) -> None:
    await console.person(Role.VIEWER, "anna")
    for name in ("anna", "nobody"):
        stranger = await console.stranger()
        codes = [(await stranger.sign_in(name, "wrong")).status_code for _ in range(6)]
        assert codes == [401, 401, 401, 401, 401, 429], name
        assert "too many wrong passwords" in stranger.text
    stranger = await console.stranger()
    assert (await stranger.sign_in("anna", PASSWORD)).status_code == 429


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE fleet.console_sessions SET seen_at = now() - interval '31 minutes'",
        "UPDATE fleet.console_sessions SET expires_at = now()",
        "UPDATE fleet.people SET revoked_at = now() WHERE name = 'viewer'",
    ],
    ids=["idle", "expired", "revoked"],
)
async def test_a_session_ends_by_idleness_by_age_and_by_revocation(console: ConsoleWorld, end: str) -> None:
    browser = await console.person(Role.VIEWER)
    assert (await browser.open("/audit")).url.path == "/audit"
    await console.world.admin.execute(end)
    assert (await browser.open("/audit")).url.path == "/sign-in"
    assert await console.world.admin.fetchval("SELECT count(*) FROM fleet.console_sessions") == 0


async def test_a_page_that_refreshes_itself_does_not_keep_a_session_awake(console: ConsoleWorld) -> None:
    browser = await console.person(Role.VIEWER)
    seen = "SELECT seen_at FROM fleet.console_sessions"
    await console.world.admin.execute("UPDATE fleet.console_sessions SET seen_at = now() - interval '5 minutes'")
    before = await console.world.admin.fetchval(seen)
    await browser.http.get("/", headers={"Fleet-Refresh": "1"})
    assert await console.world.admin.fetchval(seen) == before
    await browser.http.get("/")
    assert await console.world.admin.fetchval(seen) > before


async def test_a_changed_role_counts_from_the_next_click(console: ConsoleWorld) -> None:
    admin, other = await console.person(Role.ADMIN), await console.person(Role.VIEWER, "anna")
    assert (await other.open("/redrives/new", rail="testrail")).status_code == 403
    await admin.open("/people")
    await admin.send("/people/anna/role", role="operator")
    assert (await other.open("/redrives/new", rail="testrail")).status_code == 200
    await admin.open("/people")
    await admin.send("/people/anna/revoke")
    assert (await other.open("/")).url.path == "/sign-in"
    assert (await other.sign_in("anna", PASSWORD)).status_code == 401


async def test_nobody_changes_their_own_role(console: ConsoleWorld) -> None:
    admin = await console.person(Role.ADMIN)
    await admin.open("/people")
    token = admin.form("/people").fields["form_token"]
    answer = await admin.http.post("/people/admin/role", data={"role": "viewer", "form_token": token})
    assert answer.status_code == 403
    assert "own_role" in answer.text


async def test_the_journal_says_who_came_and_holds_no_secret(console: ConsoleWorld) -> None:
    admin = await console.person(Role.ADMIN)
    await (await console.stranger()).sign_in("admin", "wrong")
    await admin.open("/audit")
    assert "signed in" in admin.text
    assert "sign in refused" in admin.text
    told = await console.world.admin.fetch("SELECT data FROM fleet.audit_entries")
    assert told
    assert not [row for row in told if "scrypt" in row["data"]]


async def test_a_form_of_another_session_or_another_site_changes_nothing(console: ConsoleWorld) -> None:
    admin, other = await console.person(Role.ADMIN), await console.person(Role.ADMIN, "other")
    await other.open("/people")
    foreign = other.form("/people").fields["form_token"]
    await admin.open("/people")
    own = admin.form("/people").fields["form_token"]
    person = {"name": "eve", "role": "admin", "password": PASSWORD}
    sent = [
        ({"form_token": foreign}, {}),
        ({}, {}),
        ({"form_token": own}, {"Origin": "https://evil.test"}),
        ({"form_token": own}, {"Sec-Fetch-Site": "cross-site"}),
    ]
    for more, headers in sent:
        answer = await admin.http.post("/people", data=person | more, headers=headers)
        assert answer.status_code == 403, (more, headers)
        assert "form_refused" in answer.text
    assert not await console.world.admin.fetchval("SELECT count(*) FROM fleet.people WHERE name = 'eve'")


async def test_every_answer_forbids_frames_foreign_scripts_and_caches(console: ConsoleWorld) -> None:
    browser = await console.person(Role.VIEWER)
    for address in ("/", "/sign-in", "/static/console.js", "/nowhere", "/dead-letters/nothing"):
        headers = (await browser.http.get(address)).headers
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
    cookie = next(each for each in browser.http.cookies.jar if each.name == "fleet-session")
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "lax"
