"""Reconciliation in the console: days and rails, one day with its breaks page by page, registers, reports."""

import html
import re
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from core.domain.roles import Role
from core.services.access.keys import RECONCILIATION_SCOPE, Caller
from core.services.recon.register_desk import take_file
from schemas.register_mapping import RegisterImport
from tests.integration.console.conftest import PASSWORD, ConsoleWorld
from tests.integration.permits.conftest import RAIL
from tests.support.browsing import Browser

DAY = "2026-11-20"
CLERK = Caller("clerk", UUID(int=0), "person", None, frozenset({RECONCILIATION_SCOPE}), None)
LINES = 51
FILE = "ref,amount,at\n" + "".join(f"R{n},{n}.00,{DAY}T10:00:00+07:00\n" for n in range(1, LINES + 1))


@pytest.fixture
async def register_id(console: ConsoleWorld) -> UUID:
    """A register with lines that nobody knows here."""
    mapping = {
        "rail": RAIL, "provider_account": "main", "our_ref": {"column": "ref"}, "direction": {"const": "OUT"},
        "amount": {"column": "amount"}, "currency": {"const": "THB"}, "at": {"column": "at"},
    }  # fmt: skip
    content = b64encode(FILE.encode()).decode()
    asked = RegisterImport.model_validate({"mapping": mapping, "content": content, "name": "r.csv", "apply": True})
    kept = (await take_file(console.world.core.worker_ports, CLERK, asked)).kept
    assert kept is not None
    return kept.id


def next_page(browser: Browser) -> str:
    """Return where the page's link to the next one leads."""
    found = re.search(r'rel="next" href="([^"]+)"', browser.page.text)
    assert found is not None, browser.text
    return html.unescape(found[1])


async def test_a_day_is_compared_shown_with_all_its_breaks_and_reported(
    console: ConsoleWorld, register_id: UUID
) -> None:
    olga = await console.person(Role.OPERATOR)
    await olga.open("/reconciliation")
    assert "Nothing was compared in these days" in olga.text
    await olga.send("/reconciliation", rail=RAIL, business_day=DAY)
    assert f"Compared. What does not fit is below. {RAIL} main on {DAY}" in olga.text
    assert "missing here 51" in olga.text
    assert olga.text.count("register missing here") == 50
    await olga.open(next_page(olga))
    assert olga.text.count("register missing here") == 1
    assert "nobody" in olga.text

    await olga.open("/breaks?kind=register_missing_here")
    assert olga.text.count("register missing here") == 50
    await olga.open(next_page(olga))
    assert olga.text.count("register missing here") == 1

    await olga.open(f"/reconciliation?first_day={DAY}&last_day={DAY}")
    assert "complete missing here: 51" in olga.text
    assert "51 new" in olga.text
    assert "have not come" not in olga.text
    recent = (datetime.now(UTC).date() - timedelta(days=2)).isoformat()
    await olga.send("/reconciliation/fetch", rail=RAIL, business_day=recent)
    assert "Registers that have not come" in olga.text
    assert f"Asked for {recent} {RAIL} main" in olga.text
    table = await olga.http.get(f"/reconciliation/report?day={DAY}&format=csv")
    assert f"reconciliation-{DAY}-{DAY}.csv" in table.headers["content-disposition"]
    assert table.text.splitlines()[1].startswith("run,")


async def test_a_register_is_shown_and_its_file_is_taken_with_an_entry_in_the_journal(
    console: ConsoleWorld, register_id: UUID
) -> None:
    olga = await console.person(Role.OPERATOR)
    where = f"/reconciliation/registers/{register_id}"
    await olga.open(where)
    assert "out settled 51 1,326.00 THB" in olga.text
    token = olga.form(f"{where}/original").fields["form_token"]
    taken = await olga.http.post(f"{where}/original", data={"form_token": token})
    assert taken.content == FILE.encode()
    read = "SELECT actor FROM fleet.audit_entries WHERE action = 'register_original_read'"
    assert await console.world.admin.fetchval(read) == "person:operator"
    lena = await console.person(Role.VIEWER)
    await lena.open(where)
    assert "The file as it came" not in lena.text
    await lena.open("/reconciliation")
    assert "Compare now" not in lena.text


async def test_an_operator_brings_a_file_reads_it_first_and_keeps_it(console: ConsoleWorld) -> None:
    olga = await console.person(Role.OPERATOR)
    await olga.open("/reconciliation")
    where, header = (
        "/reconciliation/import",
        "PSP Transaction Id,Client Reference,Type,Amount,Fee,Status,Transaction Time\n",
    )
    form = olga.form(where).fields
    right = header + "PX1,REF-1,TRANSFER,20.00,0.00,SUCCEEDED,20/11/2026 10:00:00\n"

    async def send(text: str, **fields: str) -> str:
        given = {"form_token": form["form_token"], "provider": "ipps"} | fields
        files = {"file": ("settlement.csv", text.encode(), "text/csv")}
        olga.page = await olga.http.post(where, data=given, files=files, follow_redirects=True)
        return olga.text

    assert "Lines 1 Days 2026-11-20 Out 20.00 THB" in await send(right, read="yes")
    wrong = right + "PX2,REF-2,TRANSFER,1.005,0.00,SUCCEEDED,20/11/2026 10:00:00\n"
    assert "Lines are refused, so nothing was kept" in await send(wrong, keep="yes")
    assert "Line Why 3 amount: &#39;1.005&#39; is no amount of THB" in olga.text
    assert "no mapping is shipped for nobody" in await send(right, provider="nobody")
    assert "the mapping is not TOML" in await send(right, mapping="{")
    assert await console.world.admin.fetchval("SELECT count(*) FROM fleet.register_files") == 0
    assert "The file is kept as the register of its day" in await send(right, keep="yes")
    assert "settlement.csv" in olga.text
    assert "out settled 1 20.00 THB" in olga.text
    kept = "SELECT actor FROM fleet.audit_entries WHERE action = 'register_received'"
    assert await console.world.admin.fetchval(kept) == "person:operator"

    files = {"file": ("settlement.csv", right.encode(), "text/csv")}
    forged = await olga.http.post(where, data={"form_token": "x", "provider": "ipps", "keep": "yes"}, files=files)
    assert "open the page again" in forged.text
    assert (await olga.http.post(where, data=form)).status_code == 415
    lena = await console.person(Role.VIEWER)
    await lena.open("/reconciliation")
    assert where not in lena.page.text
    assert (await lena.http.post(where, data=form, files=files)).status_code == 403


async def test_who_belongs_to_a_tenant_sees_its_breaks_and_no_registers(console: ConsoleWorld) -> None:
    world = console.world
    await world.core.people.add(
        "test", name="tina", role=Role.OPERATOR, password=PASSWORD, tenant_id=world.caller.tenant_id
    )
    tina = await console.stranger()
    await tina.sign_in("tina", PASSWORD)
    assert (await tina.http.get("/breaks")).status_code == 200
    assert (await tina.http.get("/reconciliation")).status_code == 403
