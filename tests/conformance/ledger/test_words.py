"""Each refusal by its own word, in the documented precedence; nothing refused leaves a trace."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core.domain.ledger import (
    MAX_BALANCE_MINOR,
    ZERO_ID,
    AccountFlags,
    Transfer,
    TransferFlags,
    TransferResult,
)
from tests.support.ledger_engines import LedgerUnderTest
from tests.support.ledger_world import EURO, LedgerWorld, fresh_id, linked, open_world

LIMIT = MAX_BALANCE_MINOR
Case = Callable[[LedgerWorld, Transfer], Transfer]

# The world of these cases: the wallet has 100, of which `hold` holds 40 for the clearing account.
CASES: dict[str, Case] = {
    "id_must_not_be_zero": lambda w, h: w.move(w.bank, w.bank, 0, id=ZERO_ID),
    "exists": lambda w, h: h,
    "exists_with_different_flags": lambda w, h: replace(h, flags=TransferFlags.NONE, amount_minor=1),
    "exists_with_different_pending_id": lambda w, h: replace(h, pending_id=fresh_id(), timeout_s=9),
    "exists_with_different_timeout": lambda w, h: replace(h, timeout_s=9, debit_account_id=w.bank),
    "exists_with_different_debit_account_id": lambda w, h: replace(h, debit_account_id=w.purse, amount_minor=1),
    "exists_with_different_credit_account_id": lambda w, h: replace(h, credit_account_id=w.purse, amount_minor=1),
    "exists_with_different_amount": lambda w, h: replace(h, amount_minor=41, user_data=fresh_id()),
    "exists_with_different_user_data": lambda w, h: replace(h, user_data=fresh_id(), ledger=EURO),
    "exists_with_different_ledger": lambda w, h: replace(h, ledger=EURO, code=8),
    "exists_with_different_code": lambda w, h: replace(h, code=8),
    "flags_are_mutually_exclusive": lambda w, h: w.move(w.bank, w.bank, 0, flags=TransferFlags(6)),
    "accounts_must_be_different": lambda w, h: w.post(h, credit_account_id=w.wallet, pending_id=None),
    "pending_id_must_not_be_zero": lambda w, h: w.post(h, 0, pending_id=None),
    "pending_id_must_be_zero": lambda w, h: w.move(w.bank, w.wallet, 0, pending_id=h.id),
    "pending_id_must_be_different": lambda w, h: w.post(h, 0, id=UUID(int=5), pending_id=UUID(int=5)),
    "timeout_reserved_for_pending_transfer": lambda w, h: w.post(h, 0, timeout_s=9),
    "timeout_must_be_positive": lambda w, h: w.hold(w.bank, w.wallet, 0, timeout_s=0),
    "amount_must_not_be_zero": lambda w, h: w.post(h, 0, ledger=0),
    "ledger_must_not_be_zero": lambda w, h: w.move(w.bank, w.wallet, 1, ledger=0, code=0),
    "code_must_not_be_zero": lambda w, h: w.move(fresh_id(), w.wallet, 1, code=0),
    "debit_account_not_found": lambda w, h: w.move(fresh_id(), fresh_id(), 1),
    "credit_account_not_found": lambda w, h: w.move(w.euros, fresh_id(), 1),
    "accounts_must_have_the_same_ledger": lambda w, h: w.move(w.bank, w.euros, 1, ledger=1),
    "transfer_must_have_the_same_ledger_as_accounts": lambda w, h: w.post(h, ledger=EURO, pending_id=fresh_id()),
    "pending_transfer_not_found": lambda w, h: w.post(h, pending_id=fresh_id()),
    "pending_transfer_has_different_debit_account_id": lambda w, h: w.post(h, 99, debit_account_id=w.purse),
    "pending_transfer_has_different_credit_account_id": lambda w, h: w.post(h, 99, credit_account_id=w.purse),
    "pending_transfer_has_different_code": lambda w, h: w.post(h, 99, code=8),
    "exceeds_pending_transfer_amount": lambda w, h: w.void(h, 41),
    "pending_transfer_has_different_amount": lambda w, h: w.void(h, 39),
    "debit_account_already_closed": lambda w, h: w.move(w.shut, w.wallet, LIMIT),
    "credit_account_already_closed": lambda w, h: w.move(w.ice, w.shut, LIMIT),
    "debit_account_frozen": lambda w, h: w.move(w.ice, w.wallet, LIMIT),
    "overflows_debits_pending": lambda w, h: w.hold(w.wallet, w.clearing, LIMIT - 39),
    "overflows_credits_pending": lambda w, h: w.hold(w.bank, w.clearing, LIMIT - 39),
    "overflows_debits_posted": lambda w, h: w.move(w.bank, w.purse, LIMIT - 99),
    "overflows_credits_posted": lambda w, h: w.move(w.clearing, w.wallet, LIMIT - 99),
    "overflows_debits": lambda w, h: w.move(w.wallet, w.bank, LIMIT - 39),
    "overflows_credits": lambda w, h: w.move(w.purse, w.clearing, LIMIT - 39),
    "exceeds_credits": lambda w, h: w.move(w.wallet, w.bank, 61),
    "exceeds_debits": lambda w, h: w.move(w.bank, w.debtor, 1),
    "ok": lambda w, h: w.move(w.wallet, w.bank, 60),
}


async def _funded(ledger: LedgerUnderTest) -> tuple[LedgerWorld, Transfer]:
    world = await open_world(ledger)
    hold = world.hold(world.wallet, world.clearing, 40)
    assert list(await ledger.apply([world.move(world.bank, world.wallet, 100), hold])) == ["ok", "ok"]
    return world, hold


async def _end(ledger: LedgerUnderTest, *ends: Transfer) -> list[TransferResult]:
    return list(await ledger.apply(ends))


@pytest.mark.parametrize("word", CASES)
async def test_each_case_has_its_word(ledger: LedgerUnderTest, word: str) -> None:
    world, hold = await _funded(ledger)
    everything = [a.id for a in world.accounts()]
    before = await ledger.lookup_accounts(everything)
    assert list(await ledger.apply([CASES[word](world, hold)])) == [word]
    assert (await ledger.lookup_accounts(everything) == before) == (word != "ok")
    assert (await ledger.verify()).holds


def test_every_word_has_a_case_or_a_test_below() -> None:
    below = {
        "linked_event_failed",
        "linked_event_chain_open",
        "pending_transfer_not_pending",
        "pending_transfer_already_posted",
        "pending_transfer_already_voided",
        "pending_transfer_expired",
    }
    assert set(CASES) | below == {str(word) for word in TransferResult}


async def test_a_hold_ends_once_and_says_how(ledger: LedgerUnderTest) -> None:
    world, hold = await _funded(ledger)
    other = world.hold(world.wallet, world.clearing, 10)
    assert await _end(ledger, other) == ["ok"]
    assert await _end(ledger, world.post(hold, 15)) == ["ok"]
    assert await _end(ledger, world.void(other)) == ["ok"]
    assert await _end(ledger, world.post(hold), world.void(hold)) == ["pending_transfer_already_posted"] * 2
    assert await _end(ledger, world.post(other), world.void(other)) == ["pending_transfer_already_voided"] * 2
    wallet = (await ledger.lookup_accounts([world.wallet]))[world.wallet]
    assert (wallet.debits_pending_minor, wallet.debits_posted_minor, wallet.available_minor) == (0, 15, 85)


async def test_a_plain_transfer_is_not_a_hold(ledger: LedgerUnderTest) -> None:
    world, _ = await _funded(ledger)
    plain = world.move(world.wallet, world.clearing, 5)
    assert await _end(ledger, plain, world.post(plain)) == ["ok", "pending_transfer_not_pending"]


async def test_a_hold_past_its_time_can_no_more_be_posted_and_is_released_once(ledger: LedgerUnderTest) -> None:
    world, _ = await _funded(ledger)
    timed = world.hold(world.wallet, world.clearing, 30, timeout_s=60)
    assert await _end(ledger, timed) == ["ok"]
    assert await ledger.expire(100) == 0
    await ledger.let_expire([timed.id])
    assert await _end(ledger, world.post(timed)) == ["pending_transfer_expired"]
    assert [await ledger.expire(100), await ledger.expire(100)] == [1, 0]
    assert await _end(ledger, world.post(timed), world.void(timed)) == ["pending_transfer_expired"] * 2
    assert (await ledger.lookup_accounts([world.wallet]))[world.wallet].debits_pending_minor == 40
    assert (await ledger.verify()).holds


async def test_a_chain_fails_whole_and_leaves_the_others_be(ledger: LedgerUnderTest) -> None:
    world, hold = await _funded(ledger)
    broken = linked(
        world.move(world.wallet, world.bank, 5), world.post(hold), world.move(world.wallet, world.bank, 500)
    )
    after = world.move(world.wallet, world.bank, 60)
    answers = await ledger.apply([*broken, after, world.post(hold)])
    assert list(answers) == ["linked_event_failed", "linked_event_failed", "exceeds_credits", "ok", "ok"]
    assert await ledger.lookup_transfers([t.id for t in broken]) == {}


async def test_a_chain_over_two_ledgers_is_all_or_nothing(ledger: LedgerUnderTest) -> None:
    world, _ = await _funded(ledger)
    saved = world.account(fresh_id(), ledger=EURO, flags=AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS)
    assert list(await ledger.create_accounts([saved])) == ["ok"]

    def exchange(baht: int, euros: int, back: bool = False) -> list[Transfer]:
        sides = (saved.id, world.euros) if back else (world.euros, saved.id)
        return linked(world.move(world.wallet, world.bank, baht), world.move(*sides, euros, ledger=EURO))

    done = exchange(60, 2)
    assert list(await ledger.apply(done)) == ["ok", "ok"]
    # The first leg lacks what it needs, then the second one, each in its own ledger: neither leaves a trace.
    assert list(await ledger.apply(exchange(1, 2))) == ["exceeds_credits", "linked_event_failed"]
    assert list(await ledger.apply([world.move(world.bank, world.wallet, 9)])) == ["ok"]
    assert list(await ledger.apply(exchange(5, 3, back=True))) == ["linked_event_failed", "exceeds_credits"]
    mixed = linked(world.move(world.wallet, world.bank, 5), world.move(world.bank, saved.id, 1, ledger=EURO))
    assert list(await ledger.apply(mixed)) == ["linked_event_failed", "accounts_must_have_the_same_ledger"]
    found = await ledger.lookup_accounts([world.wallet, saved.id, world.euros])
    assert [found[each].posted_minor for each in (world.wallet, saved.id, world.euros)] == [49, 2, -2]
    held = [
        replace(each, id=fresh_id(), amount_minor=1, flags=each.flags | TransferFlags.PENDING)
        for each in exchange(1, 1, back=True)
    ]
    assert list(await ledger.apply(held)) == ["ok", "ok"]
    assert list(await ledger.apply(linked(*(world.post(each, ledger=each.ledger) for each in held)))) == ["ok", "ok"]
    assert (await ledger.verify()).holds


async def test_a_chain_that_the_batch_does_not_close_is_refused(ledger: LedgerUnderTest) -> None:
    world, _ = await _funded(ledger)
    opened = linked(*(world.move(world.bank, world.wallet, 1) for _ in range(3)))[:2]
    assert list(await ledger.apply(opened)) == ["linked_event_failed", "linked_event_chain_open"]


async def test_a_chain_sent_again_says_that_its_first_transfer_exists(ledger: LedgerUnderTest) -> None:
    world, _ = await _funded(ledger)
    chain = linked(*(world.move(world.bank, world.wallet, 1) for _ in range(3)))
    assert list(await ledger.apply(chain)) == ["ok"] * 3
    assert list(await ledger.apply(chain)) == ["exists", "linked_event_failed", "linked_event_failed"]
    assert (await ledger.lookup_accounts([world.wallet]))[world.wallet].credits_posted_minor == 103


async def test_the_order_of_a_batch_decides_what_a_wallet_can_pay(ledger: LedgerUnderTest) -> None:
    world = await open_world(ledger)
    pay, fund = world.move(world.wallet, world.bank, 10), world.move(world.bank, world.wallet, 10)
    assert list(await ledger.apply([pay, fund])) == ["exceeds_credits", "ok"]
    assert list(await ledger.apply([world.move(world.wallet, world.bank, 10), replace(fund, id=fresh_id())])) == [
        "ok",
        "ok",
    ]


async def test_a_hold_cannot_be_posted_before_its_place_in_the_batch(ledger: LedgerUnderTest) -> None:
    world, _ = await _funded(ledger)
    hold = world.hold(world.bank, world.wallet, 5)
    assert list(await ledger.apply([world.post(hold), hold])) == ["pending_transfer_not_found", "ok"]
    assert list(await ledger.apply([world.post(hold, 2), world.void(hold)])) == [
        "ok",
        "pending_transfer_already_posted",
    ]


async def test_a_hold_is_ended_only_as_what_it_is(ledger: LedgerUnderTest) -> None:
    """One fault each, with nothing else wrong that could hide it."""
    world, hold = await _funded(ledger)
    faults: dict[str, Any] = {
        "debit_account_id": world.purse,
        "credit_account_id": world.purse,
        "code": 8,
    }
    for part, other in faults.items():
        for end in (world.post(hold, **{part: other}), world.void(hold, **{part: other})):
            assert await _end(ledger, end) == [f"pending_transfer_has_different_{part}"]
    assert await _end(ledger, world.post(hold)) == ["ok"]


async def test_an_empty_batch_has_no_answers(ledger: LedgerUnderTest) -> None:
    assert list(await ledger.apply([])) == []
    assert list(await ledger.create_accounts([])) == []
    assert (await ledger.verify()).holds


async def test_accounts_answer_by_word_too(ledger: LedgerUnderTest) -> None:
    world = await open_world(ledger)
    known = world.account(world.bank)
    asked = {
        "exists": known,
        "exists_with_different_flags": replace(known, flags=AccountFlags.CLOSED, ledger=EURO),
        "exists_with_different_user_data": replace(known, user_data=fresh_id(), ledger=EURO),
        "exists_with_different_ledger": replace(known, ledger=EURO, code=9),
        "exists_with_different_code": replace(known, code=9),
        "id_must_not_be_zero": replace(known, id=ZERO_ID, code=0),
        "flags_are_mutually_exclusive": replace(known, id=fresh_id(), flags=AccountFlags(3), ledger=0),
        "ledger_must_not_be_zero": replace(known, id=fresh_id(), ledger=0, code=0),
        "code_must_not_be_zero": replace(known, id=fresh_id(), code=0),
        "ok": replace(known, id=fresh_id()),
    }
    assert list(await ledger.create_accounts(list(asked.values()))) == list(asked)
    twice = world.account(fresh_id())
    assert list(await ledger.create_accounts([twice, twice])) == ["ok", "exists"]
