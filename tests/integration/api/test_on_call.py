"""Dead letters, redrives and the journal over HTTP, each under the key that names it."""

from uuid import UUID, uuid4

import pytest

from tests.integration.api.conftest import World, payout
from tests.integration.api.test_tenants import buried

ASKED = {"selection": {"rail": "noop"}, "reason": "the gateway is back", "incident": "INC-1"}


async def letters(world: World, count: int) -> list[str]:
    wallet = await world.funded_wallet(10_000)
    made = []
    for number in range(count):
        answer = await world.api.post("/v1/intents", payout(wallet), key=f"p{number}")
        made.append(await buried(world, UUID(answer.json()["id"])))
    return made


async def test_letters_are_searched_grouped_shown_and_explained(world: World) -> None:
    made = await letters(world, 3)
    anna = await world.other(operations=["DEAD_LETTERS"])
    first = (await anna.get("/v1/dead-letters", limit="2", error_class="poison")).json()
    rest = (await anna.get("/v1/dead-letters", limit="2", cursor=first["next_cursor"])).json()
    assert [each["id"] for each in first["items"] + rest["items"]] == made[::-1]
    assert rest["next_cursor"] is None
    assert {(each["verdict"], each["class"]) for each in first["items"]} == {("SAFE", "poison")}
    (group,) = (await anna.get("/v1/dead-letters/groups")).json()["items"]
    assert (group["letters"], group["last_hour"], group["trend"]) == (3, 3, "rising")
    shown = (await anna.get(f"/v1/dead-letters/{made[0]}")).json()
    story = (await anna.get(f"/v1/stories/{made[0]}")).json()
    assert story["intent_id"] == shown["intent_id"]
    assert {line["what"] for line in story["lines"]} == {"event", "transfer", "letter"}
    assert "no permit to send was ever given" in story["summary"]
    assert (await anna.get("/v1/dead-letters", limit="x")).json()["code"] == "invalid_request"
    assert (await anna.get(f"/v1/dead-letters/{uuid4()}")).status_code == 404


async def test_a_discard_goes_by_two_keys_and_a_redrive_by_one(world: World) -> None:
    made = await letters(world, 2)
    anna = await world.other(operations=["DEAD_LETTERS", "REDRIVE_APPROVAL"])
    ben = await world.other(operations=["REDRIVE_APPROVAL", "DEAD_LETTERS"])
    dry = (await anna.post("/v1/redrives", ASKED)).json()
    assert (dry["state"], dry["verdicts"], dry["needs_approval"]) == ("DRY_RUN", {"SAFE": 2}, False)
    asked = ASKED | {"action": "DISCARD", "selection": {"ids": made[:1]}, "dry_run": False}
    waiting = (await anna.post("/v1/redrives", asked)).json()
    path = f"/v1/redrives/{waiting['id']}"
    own = await anna.post(f"{path}/approve", {})
    assert (own.status_code, own.json()["code"]) == (403, "redrive_own")
    assert (await ben.post(f"{path}/approve", {"reason": "known"})).json()["state"] == "RUNNING"
    late = await ben.post(f"{path}/reject", {})
    assert (late.status_code, late.json()["code"]) == (409, "wrong_redrive_state")
    running = (await anna.post("/v1/redrives", ASKED | {"dry_run": False})).json()
    assert (running["state"], running["total"], running["taken"]) == ("RUNNING", 1, 1)
    again = await ben.post("/v1/redrives", ASKED | {"dry_run": False})
    assert (again.status_code, again.json()["code"]) == (422, "nothing_selected")
    cancelled = (await ben.post(f"/v1/redrives/{running['id']}/cancel", {"reason": "not now"})).json()
    assert (cancelled["state"], cancelled["progress"]["released"]) == ("CANCELLED", 1)
    listed = (await anna.get("/v1/redrives", limit="1")).json()
    assert [each["id"] for each in listed["items"]] == [running["id"]]
    assert (await anna.get("/v1/redrives", cursor=listed["next_cursor"])).json()["items"][0]["id"] == waiting["id"]
    items = (await anna.get(f"{path}/letters")).json()["items"]
    assert [(each["letter_id"], each["state"]) for each in items] == [(made[0], "WAITING")]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"selection": {}}, "selection"),
        ({"selection": {"rail": None}}, "selection"),
        ({"selection": {"colour": "red"}}, "selection.colour"),
        ({"reason": "  "}, "reason"),
        ({"incident": ""}, "incident"),
        ({"rate_per_s": 0}, "rate_per_s"),
    ],
)
async def test_what_selects_everything_or_says_nothing_is_refused(
    world: World, changed: dict[str, object], field: str
) -> None:
    anna = await world.other(operations=["DEAD_LETTERS"])
    answer = await anna.post("/v1/redrives", ASKED | changed)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid_request", field)


async def test_every_route_of_people_on_call_wants_the_scope_that_names_it(world: World) -> None:
    some = str(uuid4())
    by_scope = {
        "DEAD_LETTERS": [
            ("GET", "/v1/dead-letters"), ("GET", "/v1/dead-letters/groups"), ("GET", f"/v1/dead-letters/{some}"),
            ("GET", f"/v1/stories/{some}"), ("POST", "/v1/redrives"), ("GET", "/v1/redrives"),
            ("GET", f"/v1/redrives/{some}"), ("GET", f"/v1/redrives/{some}/letters"),
            ("POST", f"/v1/redrives/{some}/cancel"), ("POST", "/v1/hand-settlements"),
        ],
        "REDRIVE_APPROVAL": [("POST", f"/v1/redrives/{some}/approve"), ("POST", f"/v1/redrives/{some}/reject")],
        "AUDIT": [("GET", "/v1/audit"), ("GET", "/v1/audit/proof"), ("GET", "/v1/audit/export")],
    }  # fmt: skip
    keys = {scope: await world.other(operations=[scope]) for scope in by_scope} | {"*": world.api}
    for scope, routes in by_scope.items():
        for method, path in routes:
            for held, key in keys.items():
                answer = await (key.get(path) if method == "GET" else key.post(path, {}))
                assert (answer.status_code == 403) == (held != scope), (held, path, answer.text)


async def test_the_journal_is_read_and_proven_in_pages(world: World) -> None:
    clerk = await world.other(operations=["AUDIT"])
    await world.other(operations=["PAYOUT"])
    page = (await clerk.get("/v1/audit", limit="2", subject="service_keys")).json()
    rest = (await clerk.get("/v1/audit", subject="service_keys", cursor=page["next_cursor"])).json()
    assert len(page["items"]) == 2
    numbers = [each["seq"] for each in page["items"] + rest["items"]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == len(numbers) == 3
    proof = (await clerk.get("/v1/audit/proof")).json()
    assert (proof["holds"], proof["faults"], proof["tenants"]) == (True, [], 1)
