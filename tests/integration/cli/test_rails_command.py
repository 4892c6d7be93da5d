"""`fleet rails` on a database of its own."""

import pytest

from core.domain.context import Context
from core.store.database import Database
from core.store.settling.rails import note_waits, register_rail
from fleet.stack.provision import RoleUrls
from tests.support.commands import Fleet


@pytest.fixture(autouse=True)
async def registered(fleet: Fleet, fresh_database: RoleUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_WORKER_URL", fresh_database.worker)
    database = await Database.connect(fresh_database.worker, max_size=1)
    async with database.unit_of_work(Context(None, "test")) as uow:
        await register_rail(uow, "sbp", '{"provider": "qp", "provider_account": "qp-1"}', b"hash")
    await database.close()


async def test_a_rail_is_paused_and_resumed_with_a_reason_and_its_events_tell_who_did_it(fleet: Fleet) -> None:
    paused = await fleet("rails", "pause", "sbp", "--operation", "PAYOUT", "--reason", "maintenance", "--json")
    assert paused.document == {
        "rail": "sbp", "operation": "PAYOUT", "paused": True, "changed": True, "deadlines_moved": 0,
        "still_paused": [],
    }  # fmt: skip
    [rail] = (await fleet("rails", "list", "--json")).document
    assert (rail["rail"], rail["provider"], rail["waits"]) == ("sbp", "qp", [])
    assert [(each["operation"], each["reason"], each["by"]) for each in rail["pauses"]] == [
        ("PAYOUT", "maintenance", "fleet-cli")
    ]
    assert "PAYOUT (maintenance)" in (await fleet("rails", "list")).out
    resumed = await fleet("rails", "resume", "sbp", "--operation", "PAYOUT", "--json")
    assert resumed.document == {
        "rail": "sbp", "operation": "PAYOUT", "paused": False, "changed": True, "deadlines_moved": 0,
        "still_paused": [],
    }  # fmt: skip
    told = (await fleet("rails", "events", "sbp", "--json")).document
    assert [(each["type"], each["operation"], each["reason"]) for each in told] == [
        ("resumed", "PAYOUT", ""),
        ("paused", "PAYOUT", "maintenance"),
    ]


async def test_the_end_of_one_pause_names_those_that_go_on(fleet: Fleet) -> None:
    await fleet("rails", "pause", "sbp", "--operation", "PAYOUT", "--reason", "maintenance")
    await fleet("rails", "pause", "sbp", "--reason", "maintenance")
    resumed = await fleet("rails", "resume", "sbp")
    assert "PAYOUT is still paused: fleet rails resume sbp --operation PAYOUT" in resumed.out
    assert (await fleet("rails", "resume", "sbp", "--json")).document["still_paused"] == ["PAYOUT"]
    await fleet("rails", "pause", "sbp", "--reason", "maintenance")
    resumed = await fleet("rails", "resume", "sbp", "--operation", "PAYOUT")
    assert "the whole rail is still paused: fleet rails resume sbp\n" in resumed.out


async def test_what_waits_without_a_person_is_listed_with_its_cause(fleet: Fleet, fresh_database: RoleUrls) -> None:
    database = await Database.connect(fresh_database.worker, max_size=1)
    async with database.unit_of_work(Context(None, "relay")) as uow:
        await note_waits(uow, "sbp", ["*"], "dispatch", 60)
    await database.close()
    assert "* (dispatch)" in (await fleet("rails", "list")).out


async def test_a_rail_that_never_registered_is_refused(fleet: Fleet) -> None:
    (await fleet("rails", "resume", "nowhere")).must_fail(3, "not_found")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("pause", "sbp", "--reason", " "), "reason_missing"),
        (("pause", "S B P", "--reason", "x"), "rail_malformed"),
        (("new", "class"), "rail_malformed"),
    ],
)
async def test_what_names_nothing_is_refused_with_a_code(fleet: Fleet, arguments: tuple[str, ...], code: str) -> None:
    outcome = await fleet("rails", *arguments)
    assert outcome.code == 2
    assert code in outcome.err
