"""A night on call in real headless Chromium, with script and without, and the same by commands."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Browser, Locator, Page, async_playwright, expect

from fleet.stack.provision import with_database
from tests.support.commands import SETTINGS, fleet_command
from tools.console_scene import OF_ONE_KIND, PASSWORD, RAIL, Scene, scene, until

pytestmark = [pytest.mark.long, pytest.mark.needs("chromium"), pytest.mark.timeout(300)]

OTHERS = 100_000
expect.set_options(timeout=20_000)
REASON, INCIDENT = "the gateway is back", "INC-1742"


@pytest.fixture(scope="module")
async def night(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """A running system with 12 dead letters of a kind among 100,000."""
    async with scene(tmp_path_factory.mktemp("night"), OTHERS) as made:
        yield made


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        await browser.close()


async def signed_in(night: Scene, browser: Browser, name: str, *, script: bool, **more: Any) -> Page:
    """Open a browser of somebody's own and sign in."""
    context = await browser.new_context(java_script_enabled=script, **more)
    page = await context.new_page()
    page.set_default_timeout(20_000)
    await page.goto(night.url)
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    return page


@asynccontextmanager
async def owner_of(night: Scene) -> AsyncIterator[asyncpg.Connection]:
    """Open the system's database as its owner."""
    assert night.stack.postgres is not None
    owner = await asyncpg.connect(with_database(night.stack.postgres.admin_url, "fleet"))
    try:
        yield owner
    finally:
        await owner.close()


async def settled(night: Scene, kind: str) -> int:
    """Return how many of the 12 payments of this kind were paid."""
    async with owner_of(night) as owner:
        counted = "SELECT count(*) FROM fleet.intents WHERE id = ANY ($1) AND state = 'SETTLED'"
        return int(await owner.fetchval(counted, night.payments[kind]))


@pytest.mark.parametrize(
    ("kind", "script"),
    [("gateway_envelope", True), ("settlement_window", False)],
    ids=["with-script", "without-script"],
)
async def test_an_operator_finds_twelve_of_100000_and_redrives_them_with_a_second_persons_approval(
    night: Scene, kind: str, script: bool
) -> None:
    async with chromium() as browser:
        olga = await signed_in(night, browser, "olga", script=script)
        complaints: list[str] = []
        olga.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        await olga.get_by_role("link", name="Dead letters", exact=True).click()
        await olga.get_by_label("Words").fill(kind.replace("_", " "))
        await olga.get_by_role("button", name="Group by kind").click()
        await expect(olga.get_by_role("row")).to_have_count(2)
        await olga.get_by_role("link", name=kind).click()
        await expect(olga.get_by_text("SAFE", exact=True)).to_have_count(OF_ONE_KIND)
        await expect(olga.get_by_text("was ever given").first).to_be_visible()
        await olga.get_by_role("button", name="Act on all that match").click()
        await olga.get_by_label("Reason").fill(REASON)
        await olga.get_by_label("Incident").fill(INCIDENT)
        await olga.get_by_label("Canary").fill("2")
        await olga.get_by_label("Ramp").fill("1")
        await olga.get_by_role("button", name="Count only").click()
        await expect(olga.get_by_text("It waits for a second person.")).to_be_visible()
        await olga.get_by_role("button", name=f"Redrive {OF_ONE_KIND} letters").click()
        await expect(olga.get_by_text("another person with the role approver decides")).to_be_visible()
        await expect(olga.get_by_role("button", name="Approve")).to_have_count(0)
        assert await settled(night, kind) == 0

        petra = await signed_in(night, browser, "petra", script=script)
        await petra.get_by_role("link", name="Redrives", exact=True).click()
        await petra.get_by_role("link", name="REDRIVE", exact=True).first.click()
        await petra.get_by_label("Why it is right").fill("seen it too")
        await petra.get_by_role("button", name="Approve").click()
        await expect(petra.get_by_text("Approved.")).to_be_visible()

        if script:
            # Nobody touches olga's page: it refreshes itself.
            await expect(olga.locator("#state")).to_have_text("done", timeout=60_000)
        else:

            async def done() -> bool:
                await olga.reload()
                return await olga.locator("#state").inner_text() == "done"

            await until(done, "the redrive's end")
        await expect(olga.get_by_text(f"{OF_ONE_KIND} succeeded, 0 failed")).to_be_visible()
        assert await settled(night, kind) == OF_ONE_KIND

        await olga.get_by_role("link", name="Its entries in the journal").click()
        for who, what in (("olga", "redrive asked"), ("petra", "redrive approved")):
            row = olga.get_by_role("row").filter(has_text=what)
            await expect(row).to_contain_text(who)
        assert complaints == []


async def compared(night: Scene, browser: Browser) -> None:
    """Let the pages of reconciliation, breaks and alerts have rows: what was paid has no register of its day."""
    # At noon: what is paid near a day's end may be in the next register, and is no break yet.
    noon = datetime.now(UTC).replace(hour=12) - timedelta(days=1)
    async with owner_of(night) as owner:
        paid = "UPDATE fleet.jobs SET closed_at = $2 WHERE intent_id = ANY ($1) AND closed_at IS NOT NULL"
        await owner.execute(paid, night.payments["gateway_envelope"], noon)
    olga = await signed_in(night, browser, "olga", script=False)
    await olga.goto(f"{night.url}/reconciliation")
    form = olga.locator("form").filter(has=olga.get_by_role("button", name="Compare now"))
    await form.get_by_label("Rail").fill(RAIL)
    await form.get_by_label("Business day").fill(noon.date().isoformat())
    await form.get_by_role("button", name="Compare now").click()
    await olga.goto(f"{night.url}/alerts")
    await expect(olga.get_by_role("row").filter(has_text="reconciliation break")).to_be_visible()


async def test_a_phone_and_a_keyboard_are_enough(night: Scene) -> None:
    async with chromium() as browser:
        if await settled(night, "gateway_envelope"):
            await compared(night, browser)
        phone = await signed_in(night, browser, "victor", script=True, viewport={"width": 390, "height": 844})
        for address in (
            "/", "/dead-letters", "/dead-letters/groups", "/intents", "/redrives", "/reviews", "/suspense", "/alerts",
            "/breaks", "/reconciliation", "/rails", f"/rails/{RAIL}", "/streams", f"/streams/{RAIL}",
            f"/streams/{RAIL}/held", f"/streams/{RAIL}/diff", "/audit", "/keys", "/routes",
        ):  # fmt: skip
            await phone.goto(night.url + address)
            wide = await phone.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, (address, wide)
            bare = await phone.locator("input:not([type=hidden]), select, textarea").evaluate_all(
                "fields => fields.filter(field => field.labels.length === 0).map(field => field.name)"
            )
            assert bare == [], address
        await phone.goto(night.url)
        await phone.keyboard.press("Tab")
        await expect(phone.get_by_role("link", name="Skip to the content")).to_be_focused()
        await phone.keyboard.press("Enter")
        await expect(phone.locator("main")).to_be_focused()


async def by_keys(page: Page, wanted: Locator, *keys: str) -> None:
    """Go on by Tab to what is wanted, as who has no pointer does, and press keys there."""
    await expect(wanted).to_be_visible()
    for _ in range(150):
        await page.keyboard.press("Tab")
        if await wanted.evaluate("element => element === document.activeElement"):
            break
    else:
        raise AssertionError(f"{wanted} is not reached by Tab")
    for key in keys:
        await page.keyboard.press(key)


async def by_keys_signed_in(night: Scene, browser: Browser, name: str) -> Page:
    """Sign in on a screen as wide as a phone's, by the keyboard."""
    context = await browser.new_context(viewport={"width": 390, "height": 844})
    page = await context.new_page()
    page.set_default_timeout(20_000)
    await page.goto(night.url)
    await by_keys(page, page.get_by_label("Name"))
    await page.keyboard.type(name)
    await by_keys(page, page.get_by_label("Password"))
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    return page


async def test_twelve_letters_are_redriven_by_the_keyboard_alone_on_a_screen_as_wide_as_a_phones(night: Scene) -> None:
    kind, too_wide = "routing_table", list[tuple[str, int]]()
    async with chromium() as browser:
        olga = await by_keys_signed_in(night, browser, "olga")

        async def note(page: Page) -> None:
            wide = await page.evaluate("document.documentElement.scrollWidth")
            too_wide.extend([(page.url, wide)] if wide > 390 else [])

        await by_keys(olga, olga.get_by_role("link", name="Dead letters", exact=True), "Enter")
        await expect(olga.get_by_role("heading", name="Dead letters")).to_be_visible()
        await by_keys(olga, olga.get_by_label("Fingerprint"))
        await olga.keyboard.type(kind)
        await olga.keyboard.press("Enter")
        await by_keys(olga, olga.get_by_role("button", name="Act on all that match"), "Space")
        for label, text in (("Reason", REASON), ("Incident", INCIDENT)):
            await by_keys(olga, olga.get_by_label(label, exact=True))
            await olga.keyboard.type(text)
        await by_keys(olga, olga.get_by_role("button", name="Count only"), "Space")
        await expect(olga.get_by_text("It waits for a second person.")).to_be_visible()
        await note(olga)
        await by_keys(olga, olga.get_by_role("button", name=f"Redrive {OF_ONE_KIND} letters"), "Enter")
        await expect(olga.get_by_text("another person with the role approver decides")).to_be_visible()
        await note(olga)
        petra = await by_keys_signed_in(night, browser, "petra")
        await by_keys(petra, petra.get_by_role("link", name="Redrives", exact=True), "Enter")
        await expect(petra.get_by_role("heading", name="Redrives")).to_be_visible()
        await note(petra)
        await petra.goto(olga.url)
        await by_keys(petra, petra.get_by_label("Why it is right"))
        await petra.keyboard.type("seen it too")
        await by_keys(petra, petra.get_by_role("button", name="Approve"), "Enter")
        await expect(petra.get_by_text("Approved.")).to_be_visible()
        await expect(olga.locator("#state")).to_have_text("done", timeout=60_000)
        await note(olga)
    assert await settled(night, kind) == OF_ONE_KIND
    assert too_wide == []


async def test_the_same_by_commands_alone(
    night: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    kind = "checksum_digit"
    monkeypatch.setenv("FLEET_STACK", str(night.stack.home / "stack.json"))
    fleet = fleet_command(capsys, monkeypatch)
    groups = (await fleet("dlq", "groups", "--text", "checksum digit", "--json")).document["items"]
    assert [(group["fingerprint"], group["letters"]) for group in groups] == [(kind, OF_ONE_KIND)]
    letters = (await fleet("dlq", "list", "--fingerprint", kind, "--json")).document["items"]
    assert [letter["verdict"] for letter in letters] == ["SAFE"] * OF_ONE_KIND

    async def key(operations: str) -> dict[str, str]:
        made = (await fleet("keys", "create", "--name", "op", "--operations", operations, "--json")).document
        return {"FLEET_KEY_ID": made["key_id"], "FLEET_KEY_SECRET": made["secret"]}

    operator, approver = await key("DEAD_LETTERS"), await key("REDRIVE_APPROVAL,DEAD_LETTERS")
    for name, value in operator.items():
        monkeypatch.setenv(name, value)
    pace = ("--canary", "2", "--ramp", "1")
    asked = ("dlq", "redrive", "--fingerprint", kind, "--reason", REASON, "--incident", INCIDENT, *pace, "--json")
    dry = (await fleet(*asked)).document
    assert (dry["state"], dry["total"], dry["needs_approval"]) == ("DRY_RUN", OF_ONE_KIND, True)
    redrive = (await fleet(*asked, "--yes")).document["id"]
    (await fleet("redrives", "approve", redrive, "--yes")).must_fail(3, "operation_not_permitted")
    for name, value in approver.items():
        monkeypatch.setenv(name, value)
    assert (await fleet("redrives", "approve", redrive, "--yes", "--json")).code == 0
    assert (await fleet("redrives", "watch", redrive)).code == 0
    assert await settled(night, kind) == OF_ONE_KIND
    for name in operator:
        monkeypatch.delenv(name)
    told = (await fleet("audit", "list", "--subject", f"redrive:{redrive}", "--json")).document["items"]
    actors = {entry["action"]: entry["actor"] for entry in told}
    assert actors["redrive_asked"] == f"key:{operator['FLEET_KEY_ID']}"
    assert actors["redrive_approved"] == f"key:{approver['FLEET_KEY_ID']}"
