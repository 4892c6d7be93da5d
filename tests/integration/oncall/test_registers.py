"""Every kind of difference between a register, our payments and the ledger is planted, found and named; none is found
where nothing differs.
"""

import asyncio
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest

from core.domain.context import Context
from core.domain.register_records import record_of
from core.domain.registers import Account, lines_of
from core.domain.roles import Role
from core.services.access.keys import Caller
from core.services.access.people import SYSTEM_TENANT, caller_of
from core.services.problems import Refusal
from core.services.recon.mappings import shipped_mapping
from core.services.recon.recon import approve_break, resolve_break
from core.services.recon.register_desk import take_upload
from core.services.recon.registers import close_register, compare_day, compare_lately, want_registers
from schemas.recon import BreakResolution, BreakState, BreakView
from schemas.registers import (
    RegisterClosed,
    RegisterDirection,
    RegisterLine,
    RegisterOpened,
    RegisterOperation,
    RegisterRun,
    RegisterState,
    RegisterStatus,
)
from tests.integration.permits.conftest import RAIL, World, pay_job

CONTEXT = Context(None, "test")
ACCOUNT = Account(RAIL, "main", "sandbox")


def clerk(world: World, name: str = "anna") -> Caller:
    return replace(world.caller, key_id=name, operations=frozenset({"RECONCILIATION", "REDRIVE_APPROVAL"}))


@dataclass(slots=True)
class Day:
    """A day with payments of each end, and what an honest provider's register says about it.

    It is about noon of it, at whatever hour a test runs: near a day's end a payment may be the next register's.
    """

    world: World
    zone: ZoneInfo
    day: date
    intents: dict[str, UUID] = field(default_factory=dict)
    lines: list[RegisterLine] = field(default_factory=list)

    @classmethod
    async def opened(cls, world: World, **capabilities: Any) -> "Day":
        """Register the rail with days of a zone in which it is noon now; the day is today's there."""
        now = datetime.now(UTC)
        zone = ZoneInfo(f"Etc/GMT{now.hour - 12:+d}")  # these names count hours behind UTC
        await world.register(business_timezone=zone.key, **capabilities)
        return cls(world, zone, now.astimezone(zone).date())

    @property
    def start(self) -> datetime:
        """When the day began."""
        return datetime.combine(self.day, time(), self.zone)

    @property
    def end(self) -> datetime:
        """When the day ends; no clock of its zone is ever put."""
        return self.start + timedelta(days=1)

    async def bring(self, lines: Sequence[RegisterLine] | None = None, day: date | None = None) -> RegisterState:
        """Bring a register as an adapter does, in parts; return what became of it."""
        ports, lines = self.world.core.worker_ports, self.lines if lines is None else lines
        asked = RegisterOpened(provider_account="main", environment="sandbox", business_day=day or self.day)
        digest = hashlib.sha256("".join(each.model_dump_json() for each in lines).encode()).hexdigest()
        async with self.world.uow() as uow:
            file_id = await ports.registers.open(uow, RAIL, asked, "FETCHED")
        for at in range(0, len(lines), 2):
            for _ in range(2):  # a repeated part is one part
                async with self.world.uow() as uow:
                    await ports.registers.take(uow, file_id, map(record_of, lines[at : at + 2]))
        async with self.world.uow() as uow:
            closed = RegisterClosed(lines=len(lines), file_hash=digest)
            return (await close_register(uow, ports, RAIL, file_id, closed)).state

    async def compare(self, day: date | None = None) -> RegisterRun:
        return await compare_day(self.world.core.worker_ports, CONTEXT, ACCOUNT, day or self.day)

    async def breaks(self, state: BreakState | None = BreakState.OPEN) -> list[BreakView]:
        async with self.world.uow() as uow:
            return await self.world.core.worker_ports.recon.page(uow, None, state, None, 100)

    def line_of(self, name: str) -> int:
        """Return the place of a payment's line."""
        return [*self.intents].index(name)


def classes(run: RegisterRun) -> dict[str, int]:
    """Return how many entries came to each class that is not plain agreement."""
    return {f"{x.side}.{x.match}": x.count for x in run.tallies if x.match != "matched"}


@pytest.fixture
async def day(world: World) -> Day:
    """Three settled payments and one declined, all in the register."""
    made = await Day.opened(world, inquiry=True)
    wallet = await world.wallet(10_000)
    for place, name in enumerate(("first", "second", "third", "declined"), start=1):
        intent = made.intents[name] = await world.pay(wallet)
        await world.sent(intent)
        if name == "declined":
            await world.tell(pay_job(intent), "DECLINED", reason="payee_not_found")
        else:
            await world.tell(pay_job(intent), "SUCCEEDED", provider_tx_id=f"TX{place}")
        made.lines.append(
            RegisterLine(
                line=place,
                provider_ref=f"TX{place}",
                our_ref=(await world.job(pay_job(intent)))["reference"],
                operation="PAYMENT",
                direction="OUT",
                amount_minor=100,
                fee_minor=0,
                currency="THB",
                status="FAILED" if name == "declined" else "SETTLED",
                at=datetime.now(UTC),
            )
        )  # fmt: skip
    await world.pay(wallet)  # asked for and never sent: no register knows it
    return made


async def test_a_register_that_says_what_we_booked_has_no_break(day: Day) -> None:
    assert await day.bring() is RegisterState.COMPLETE
    run = await day.compare()
    assert (run.register_state, run.clean, classes(run)) == ("COMPLETE", True, {})
    assert lines_of(run.tallies) == len(day.lines)
    assert next(each for each in run.tallies if each.side == "OURS").count == 3
    assert await day.breaks(None) == []
    without_ours = [each.model_copy(update={"our_ref": ""}) for each in day.lines]
    await day.bring(without_ours)
    assert classes(await day.compare()) == {"THEIRS.missing_here": 1}, "the declined one has no name of the provider's"


def edited(lines: Sequence[RegisterLine], place: int, **changed: Any) -> list[RegisterLine]:
    return [each.model_copy(update=changed) if at == place else each for at, each in enumerate(lines)]


PLANTED: dict[str, tuple[Any, dict[str, int], str | None, int]] = {
    "missing_there": (lambda lines: lines[1:], {"OURS.missing_there": 1}, "first", 100),
    "missing_here": (
        lambda lines: [*lines, lines[0].model_copy(update={"line": 9, "our_ref": "NOT-OURS", "provider_ref": "TX9"})],
        {"THEIRS.missing_here": 1}, None, 100,
    ),
    "amount": (lambda lines: edited(lines, 0, amount_minor=70), {"THEIRS.amount": 1}, "first", 30),
    "fee": (lambda lines: edited(lines, 1, fee_minor=7), {"THEIRS.fee": 1}, "second", 7),
    "status": (lambda lines: edited(lines, 3, status=RegisterStatus.SETTLED), {"THEIRS.status": 1}, "declined", 100),
    "duplicate": (
        lambda lines: [*lines, lines[2].model_copy(update={"line": 9, "provider_ref": "TX9"})],
        {"THEIRS.duplicate": 1}, "third", 100,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLANTED)
async def test_a_planted_difference_is_found_and_named(day: Day, kind: str) -> None:
    spoil, expected, subject, at_stake_minor = PLANTED[kind]
    lines = spoil(day.lines)
    await day.bring(lines)
    await age(day, "first")
    run = await day.compare()
    assert (classes(run), run.breaks, run.new_breaks) == (expected, 1, 1)
    assert lines_of(run.tallies) == len(lines), "each line is in exactly one class"
    (found,) = await day.breaks()
    assert (found.kind, found.amount_minor, found.rail, found.business_day) == (
        f"register_{kind}", at_stake_minor, RAIL, day.day,
    )  # fmt: skip
    assert found.intent_id == (day.intents[subject] if subject else None)
    assert ("page", "reconciliation_break") in await day.world.alerts()
    again = await day.compare()
    assert (again.breaks, again.new_breaks) == (1, 0), "found again, it is the same break"
    await day.bring()
    mended = await day.compare()
    assert (mended.clean, mended.gone) == (True, 1), "a newer edition of the register put it right"
    assert [each.state for each in await day.breaks(None)] == [BreakState.GONE]


async def age(day: Day, name: str) -> None:
    """Let a payment be settled at the day's beginning: far from the day's end."""
    job = pay_job(day.intents[name])
    await day.world.admin.execute("UPDATE fleet.jobs SET closed_at = $2 WHERE id = $1", job, day.start)


async def test_what_the_ledger_moved_otherwise_is_found_beside_an_equal_register(day: Day) -> None:
    await day.bring()
    admin = day.world.admin
    await admin.execute("SET session_replication_role = replica")
    await admin.execute(
        "UPDATE fleet.transfers SET amount_minor = 60 WHERE user_data = $1 AND flags & 4 = 4", day.intents["second"]
    )
    await admin.execute("RESET session_replication_role")
    assert classes(await day.compare()) == {"THEIRS.amount": 1}
    (found,) = await day.breaks()
    assert (found.amount_minor, found.intent_id) == (40, day.intents["second"])
    assert "booked 60" in found.detail


async def test_a_payment_near_the_end_of_the_day_is_carried_until_the_next_register_is_there(day: Day) -> None:
    await day.bring(day.lines[1:])
    last_minute = day.end - timedelta(minutes=1)
    job = pay_job(day.intents["first"])
    await day.world.admin.execute("UPDATE fleet.jobs SET closed_at = $2 WHERE id = $1", job, last_minute)
    run = await day.compare()
    assert (run.clean, classes(run)) == (True, {"OURS.carried": 1})
    async with day.world.uow() as uow:
        (carried,) = await day.world.core.worker_ports.registers.carried(uow, run.id, 10)
    assert (carried.intent_id, carried.amount_minor) == (day.intents["first"], 100)
    tomorrow = day.day + timedelta(days=1)
    await day.bring([], tomorrow)
    assert classes(await day.compare()) == {"OURS.missing_there": 1}
    await day.bring(day.lines[:1], tomorrow)
    run = await day.compare()
    assert (classes(run), run.gone) == ({"OURS.found_elsewhere": 1}, 1)
    assert classes(await day.compare(tomorrow)) == {}, "the line is about a payment of the day before"


async def test_a_payment_in_the_registers_of_two_days_was_paid_twice(day: Day) -> None:
    await day.bring()
    tomorrow = day.day + timedelta(days=1)
    await day.bring([day.lines[0].model_copy(update={"provider_ref": "TX9"})], tomorrow)
    assert classes(await day.compare()) == {}
    assert classes(await day.compare(tomorrow)) == {"THEIRS.duplicate": 1}


async def test_a_day_without_payments_needs_no_register_and_one_with_payments_is_one_break(day: Day) -> None:
    assert (await day.compare(day.day - timedelta(days=5))).clean
    for name in ("first", "second", "third"):
        await age(day, name)
    run = await day.compare()
    assert (run.register_state, run.breaks) == ("MISSING", 1)
    (found,) = await day.breaks()
    assert (found.kind, found.intent_id) == ("register_absent", None)
    assert "3 payments" in found.detail
    await day.bring()
    assert (await day.compare()).gone == 1


async def test_the_same_register_again_is_the_same_and_a_newer_edition_takes_its_place(day: Day) -> None:
    await day.bring()
    await day.bring()
    await day.bring(day.lines[:3])
    async with day.world.uow() as uow:
        files = await day.world.core.worker_ports.registers.files(uow, RAIL, None, 10)
    assert [(each.state, each.lines) for each in files] == [("COMPLETE", 3), ("SUPERSEDED", 4)]
    with pytest.raises(Exception, match="permission denied"):
        async with day.world.uow() as uow:
            await uow.connection.execute("DELETE FROM fleet.register_lines")


async def brought_by(
    day: Day, name: str, role: Role, lines: Sequence[RegisterLine], section: str = ""
) -> RegisterState:
    """Let a person of this role bring these lines as a file; return what became of it."""
    mapping = shipped_mapping("ipps").model_copy(update={"rail": RAIL, "provider_account": "main", "section": section})
    text = "PSP Transaction Id,Client Reference,Type,Amount,Fee,Status,Transaction Time\n" + "".join(
        f"{x.provider_ref},{x.our_ref},TRANSFER,1.00,0.00,{'FAILED' if x.status == 'FAILED' else 'SUCCEEDED'},"
        f"{x.at:%d/%m/%Y %H:%M:%S}\n"
        for x in lines
    )
    person = caller_of(name, SYSTEM_TENANT, role)
    ports, file = day.world.core.worker_ports, io.BytesIO(text.encode())
    kept = (await take_upload(ports, person, mapping, file, "theirs.csv", day.day, apply=True)).kept
    assert kept is not None
    return kept.state


async def test_a_file_counts_against_what_was_fetched_when_two_people_bring_it_and_one_of_them_may_approve(
    day: Day,
) -> None:
    await day.bring(day.lines[1:])
    assert (await day.compare()).breaks == 1
    waiting = [
        ("anna", Role.OPERATOR, day.lines),
        ("anna", Role.OPERATOR, day.lines),  # twice is once
        ("anna", Role.ADMIN, day.lines),  # and nobody is two people
        ("ben", Role.OPERATOR, day.lines),  # nor may everybody agree
        ("cleo", Role.APPROVER, day.lines[:3]),  # nor to something else
    ]
    for name, role, lines in waiting:
        assert await brought_by(day, name, role, lines) == RegisterState.SUPERSEDED, (name, role)
        assert (await day.compare()).breaks == 1
    assert await brought_by(day, "cleo", Role.APPROVER, day.lines) == RegisterState.COMPLETE
    assert (await day.compare()).breaks == 0
    # What two people agreed on is no more one person's to change than what was fetched.
    assert await brought_by(day, "anna", Role.ADMIN, day.lines[:2]) == RegisterState.SUPERSEDED
    # What its provider tells later counts, and what was brought before that is of no use any more.
    assert await day.bring(day.lines[1:]) == RegisterState.COMPLETE
    assert await brought_by(day, "dora", Role.APPROVER, day.lines[:2]) == RegisterState.SUPERSEDED
    assert (await day.compare()).breaks == 1
    told = await day.world.admin.fetch(
        "SELECT actor FROM fleet.audit_entries WHERE action = 'register_received' AND data LIKE '%COMPLETE%'"
        " ORDER BY seq"
    )
    assert [row["actor"] for row in told][1] == "person:cleo"


@pytest.mark.parametrize("section", ["", "x"])
async def test_what_one_person_brought_under_any_section_counts_no_more_once_the_day_is_fetched(
    day: Day, section: str
) -> None:
    assert await brought_by(day, "anna", Role.ADMIN, day.lines, section) == RegisterState.COMPLETE
    assert (await day.compare()).breaks == 0
    await day.bring(day.lines[1:])
    assert (await day.compare()).breaks == 1, "the line that only one person's file has is missing there"
    # What two people agree to since stays when the provider tells more of another section.
    assert await brought_by(day, "anna", Role.ADMIN, day.lines[:1], "y") == RegisterState.SUPERSEDED
    assert await brought_by(day, "cleo", Role.APPROVER, day.lines[:1], "y") == RegisterState.COMPLETE
    assert (await day.compare()).breaks == 0
    await day.bring(day.lines[2:])
    assert (await day.compare()).breaks == 1
    async with day.world.uow() as uow:
        files = await day.world.core.worker_ports.registers.files(uow, RAIL, None, 10)
    assert [(each.section, each.lines) for each in files if each.state == RegisterState.COMPLETE] == [("", 2), ("y", 1)]


async def test_an_agreement_that_another_took_the_place_of_is_of_no_use_to_one_of_its_people(day: Day) -> None:
    await day.bring(day.lines[2:])
    for lines, people in ((day.lines, ("anna", "cleo")), (day.lines[1:], ("ben", "dora"))):
        assert await brought_by(day, people[0], Role.ADMIN, lines) == RegisterState.SUPERSEDED
        assert await brought_by(day, people[1], Role.APPROVER, lines) == RegisterState.COMPLETE
    assert (await day.compare()).breaks == 1
    assert await brought_by(day, "cleo", Role.APPROVER, day.lines) == RegisterState.SUPERSEDED, "alone"
    assert (await day.compare()).breaks == 1
    later = day.end + timedelta(hours=1)

    async def compared() -> list[int]:
        runs = await compare_lately(day.world.core.worker_ports, CONTEXT, later)
        return [run.breaks for run in runs if run.business_day == day.day]

    await compared()
    assert await compared() == [], "nothing came since"
    assert await brought_by(day, "anna", Role.ADMIN, day.lines) == RegisterState.COMPLETE
    assert await compared() == [0]


async def test_a_register_counts_only_when_every_line_has_come(day: Day) -> None:
    ports = day.world.core.worker_ports
    asked = RegisterOpened(provider_account="main", environment="sandbox", business_day=day.day)
    async with day.world.uow() as uow:
        file_id = await ports.registers.open(uow, RAIL, asked, "FETCHED")
        await ports.registers.take(uow, file_id, map(record_of, day.lines[:2]))
    with pytest.raises(Refusal) as refused:
        async with day.world.uow() as uow:
            await close_register(uow, ports, RAIL, file_id, RegisterClosed(lines=4, file_hash="0" * 64))
    assert refused.value.code == "register_incomplete"
    assert (await day.compare()).register_state == "MISSING"


async def test_a_day_that_ended_is_asked_for_and_compared_once_its_register_is_there(day: Day) -> None:
    ports = day.world.core.worker_ports
    later = day.end + timedelta(hours=1)
    await want_registers(ports, CONTEXT, later)
    async with day.world.uow() as uow:
        wanted = [each.business_day for each in await ports.registers.wanted(uow, RAIL)]
    assert wanted == [day.day - timedelta(days=2), day.day - timedelta(days=1), day.day]
    await day.bring()
    async with day.world.uow() as uow:
        assert day.day not in [each.business_day for each in await ports.registers.wanted(uow, RAIL)]
    runs = await compare_lately(ports, CONTEXT, later)
    assert [(run.business_day, run.clean) for run in runs] == [(each, True) for each in wanted]
    now = datetime.now(UTC)
    assert [run.business_day for run in await compare_lately(ports, CONTEXT, now)] == [day.day - timedelta(days=3)]
    assert await compare_lately(ports, CONTEXT, now) == [], "nothing came since"


async def test_a_day_is_asked_of_one_adapter_at_a_time_and_of_another_once_the_first_is_silent(day: Day) -> None:
    ports = day.world.core.worker_ports

    async def wanted(asker: UUID | None = None) -> list[date]:
        async with day.world.uow() as uow:
            return [each.business_day for each in await ports.registers.wanted(uow, RAIL, asker=asker)]

    async with day.world.uow() as uow:
        await ports.registers.want(uow, ACCOUNT, [day.day], again=False)
    first, second = await asyncio.gather(wanted(), wanted())
    assert sorted([first, second]) == [[], [day.day]]
    async with day.world.uow() as uow:
        await uow.connection.execute("UPDATE fleet.register_days SET leased_until = now() - interval '1 second'")
    assert await wanted() == [day.day]
    assert await wanted(uuid4()) == [], "nor is it told to an adapter that names itself"
    async with day.world.uow() as uow:
        await uow.connection.execute("UPDATE fleet.register_days SET leased_until = now() - interval '1 second'")
    asker = uuid4()
    assert await wanted(asker) == await wanted(asker) == [day.day], "the answer may have been lost"
    assert await wanted(uuid4()) == await wanted() == []


async def test_two_adapters_that_open_the_same_register_at_once_are_both_answered(day: Day) -> None:
    ports = day.world.core.worker_ports
    asked = RegisterOpened(provider_account="main", environment="sandbox", business_day=day.day)

    async def opened() -> UUID:
        async with day.world.uow() as uow:
            return await ports.registers.open(uow, RAIL, asked, "FETCHED")

    made = await asyncio.gather(*(opened() for _ in range(4)))
    async with day.world.uow() as uow:
        still = [each for each in made if await ports.registers.is_loading(uow, RAIL, each)]
    assert len(still) == 1, "the last one's counts; the others are told that theirs is gone"


async def test_a_line_that_only_the_provider_can_put_right_is_closed_by_two_people(day: Day) -> None:
    await day.bring(edited(day.lines, 1, fee_minor=7))
    await day.compare()
    (found,) = await day.breaks()
    ports = day.world.core.worker_ports
    asked = BreakResolution(reason="the provider confirmed that the fee is not charged, ticket 4711")
    assert (await resolve_break(ports, clerk(day.world), found.id, asked)).state is BreakState.PROPOSED
    with pytest.raises(Refusal) as own:
        await approve_break(ports, clerk(day.world), found.id)
    assert own.value.code == "redrive_own"
    assert (await approve_break(ports, clerk(day.world, "ben"), found.id)).state is BreakState.RESOLVED
    assert (await day.compare()).new_breaks == 0
    assert await day.breaks() == []


async def test_whatever_a_register_says_each_line_and_each_payment_is_counted_once(day: Day) -> None:
    drawn = Random(20261121)
    for _ in range(12):
        lines = []
        for number in range(1, drawn.randint(1, 25)):
            line = drawn.choice(day.lines).model_copy(update={"line": number, "fee_minor": drawn.choice([None, 0, 3])})
            changed: dict[str, Any] = {
                "our_ref": drawn.choice([line.our_ref, line.our_ref, "", "STRANGER"]),
                "provider_ref": drawn.choice([line.provider_ref, "", f"TX{drawn.randint(1, 5)}"]),
                "amount_minor": drawn.choice([100, 100, 70]),
                "currency": drawn.choice(["THB", "THB", "USD"]),
                "status": drawn.choice([*RegisterStatus]),
                "operation": drawn.choice([*RegisterOperation]),
                "direction": drawn.choice([*RegisterDirection]),
            }
            lines.append(line.model_copy(update=changed))
        await day.bring(lines)
        run = await day.compare()
        assert lines_of(run.tallies) == len(lines)
        assert sum(each.count for each in run.tallies if each.side == "OURS") == 3
        assert sum(each.amount_minor for each in run.tallies if each.side == "THEIRS") == sum(
            each.amount_minor for each in lines
        )
