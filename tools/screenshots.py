"""`./dev screenshots`: pictures of the console for docs/console.md, taken from a running system in a real browser.

python -m tools.screenshots [FOLDER]    default: docs/pictures
"""

import asyncio
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, Page, async_playwright, expect

from tools.console_scene import KINDS, PASSWORD, RAIL, Scene, scene

ROOT: Final = Path(__file__).resolve().parent.parent
_WIDE: Final = {"width": 1280, "height": 800}
_PHONE: Final = {"width": 390, "height": 844}
_OTHERS: Final = 5000
_KIND: Final = next(iter(KINDS))


async def main(folder: Path) -> int:
    """Take the pictures; return the exit code."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.stderr.write("screenshots: there is no chromium: apt-get install -y chromium\n")
        return 3
    with tempfile.TemporaryDirectory(prefix="psp-fleet-") as home:
        async with scene(Path(home), _OTHERS) as shown, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            await _pictures(shown, browser, folder)
            await browser.close()
    return 0


async def _pictures(shown: Scene, browser: Browser, folder: Path) -> None:
    page = await _signed_in(shown, browser, "olga", _WIDE)
    await _take(page, folder / "overview.png", f"{shown.url}/")
    await _take(page, folder / "dead-letters.png", f"{shown.url}/dead-letters?fingerprint={_KIND}")
    await _take(page, folder / "payment.png", f"{shown.url}/intents/{shown.payments[_KIND][0]}")
    asked = f"fingerprint={_KIND}&reason=the+gateway+is+back&incident=INC-1742&canary=2"
    await _take(page, folder / "redrive-dry-run.png", f"{shown.url}/redrives/new?{asked}")
    await page.get_by_role("button", name="Redrive 12 letters").click()
    approver = await _signed_in(shown, browser, "petra", _WIDE)
    await approver.goto(page.url)
    await approver.get_by_role("button", name="Approve").click()
    await _take(approver, folder / "redrive.png", approver.url)
    await expect(approver.locator("#state")).to_have_text("done", timeout=60_000)
    await _take(page, folder / "audit.png", f"{shown.url}/audit")
    await _take(page, folder / "streams.png", f"{shown.url}/streams/{RAIL}")
    # What was paid has no register yet: the day is compared, and says so.
    await page.goto(f"{shown.url}/reconciliation")
    compared = page.locator("form").filter(has=page.get_by_role("button", name="Compare now"))
    await compared.get_by_label("Rail").fill(RAIL)
    await compared.get_by_label("Business day").fill(datetime.now(UTC).date().isoformat())
    await compared.get_by_role("button", name="Compare now").click()
    await _take(page, folder / "reconciliation.png", f"{shown.url}/reconciliation")
    await _take(page, folder / "alerts.png", f"{shown.url}/alerts")
    phone = await _signed_in(shown, browser, "victor", _PHONE)
    await _take(phone, folder / "phone.png", f"{shown.url}/dead-letters?fingerprint={_KIND}")


async def _signed_in(shown: Scene, browser: Browser, name: str, size: dict[str, int]) -> Page:
    page = await browser.new_page(viewport={"width": size["width"], "height": size["height"]})
    await page.goto(f"{shown.url}/sign-in")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    return page


async def _take(page: Page, path: Path, address: str) -> None:
    await page.goto(address)
    await page.screenshot(path=str(path))
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    chosen.mkdir(parents=True, exist_ok=True)
    sys.exit(asyncio.run(main(chosen)))
