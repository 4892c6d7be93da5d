"""Many connections at once on the same accounts, ids and holds: one truth, no deadlock, no broken flag."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from core.domain.ledger import Transfer, TransferResult
from tests.support.ledger_engines import LedgerUnderTest
from tests.support.ledger_world import LedgerWorld, fresh_id, linked, open_world

CONNECTIONS = 8


async def _all_at_once(
    ledger: LedgerUnderTest, batches: Sequence[Sequence[Transfer]]
) -> list[Sequence[TransferResult]]:
    """Apply every batch, up to eight at a time; whatever is raised, a deadlock too, fails the test."""
    return list(await asyncio.gather(*(ledger.apply(batch) for batch in batches)))


def _mixed_batch(world: LedgerWorld, draw: random.Random) -> list[Transfer]:
    """Transfers in both directions between hot accounts: some batches are safe in every order, some are not."""
    wallets, batch = [world.wallet, world.purse], list[Transfer]()
    for _ in range(draw.randint(1, 12)):
        debit, credit = draw.choice(
            [(world.bank, draw.choice(wallets)), (draw.choice(wallets), world.clearing), tuple(draw.sample(wallets, 2))]
        )
        kind = draw.random()
        if kind < 0.5:
            batch.append(world.move(debit, credit, draw.randint(1, 20)))
        elif kind < 0.7:
            batch += linked(world.move(debit, credit, 3), world.move(world.clearing, world.bank, 1))
        else:
            hold = world.hold(debit, credit, draw.randint(2, 20))
            batch += [hold, world.post(hold, 1) if kind < 0.85 else world.void(hold)]
    draw.shuffle(batch)
    return [replace(each, flags=each.flags & ~1) if each is batch[-1] else each for each in batch]


async def test_mixed_batches_on_hot_accounts_sum_up_and_never_deadlock(ledger: LedgerUnderTest) -> None:
    world, draw = await open_world(ledger), random.Random(7)
    batches = [_mixed_batch(world, draw) for _ in range(120)]
    batches += [draw.sample(batch, len(batch)) for batch in batches[:40]]  # the same ids again, in another order
    draw.shuffle(batches)
    answers = await _all_at_once(ledger, batches)
    counted = Counter(str(answer) for batch in answers for answer in batch)
    assert counted["ok"] > 100, counted
    assert counted["exists"] > 20, counted
    accepted = {t.id for b, a in zip(batches, answers, strict=True) for t, r in zip(b, a, strict=True) if r == "ok"}
    report = await ledger.verify()
    assert report.holds, report.discrepancies
    assert report.transfers == len(accepted) == counted["ok"]


async def test_a_hot_wallet_is_never_overdrawn_and_is_spent_to_the_last_unit(ledger: LedgerUnderTest) -> None:
    world = await open_world(ledger)
    assert list(await ledger.apply([world.move(world.bank, world.wallet, 300)])) == ["ok"]
    batches = [[world.move(world.wallet, world.clearing, 1) for _ in range(10)] for _ in range(60)]
    answers = Counter(str(answer) for batch in await _all_at_once(ledger, batches) for answer in batch)
    assert answers == {"ok": 300, "exceeds_credits": 300}
    assert (await ledger.lookup_accounts([world.wallet]))[world.wallet].available_minor == 0


async def test_the_same_batch_sent_by_all_at_once_moves_once(ledger: LedgerUnderTest) -> None:
    world = await open_world(ledger)
    for _ in range(15):
        batch = [world.move(world.bank, world.wallet, 1) for _ in range(20)]
        turned = [batch if number % 2 else batch[::-1] for number in range(CONNECTIONS)]
        answers = Counter(str(answer) for each in await _all_at_once(ledger, turned) for answer in each)
        assert answers == {"ok": 20, "exists": 20 * (CONNECTIONS - 1)}
    assert (await ledger.lookup_accounts([world.wallet]))[world.wallet].posted_minor == 15 * 20


async def test_the_same_id_with_other_accounts_is_accepted_once(ledger: LedgerUnderTest) -> None:
    world = await open_world(ledger)
    for number in range(40):
        ids = [fresh_id() for _ in range(5)]
        safe = [world.move(world.bank, world.clearing, 1, id=each) for each in ids]
        # The second batch depends on itself, so it is judged in order, under locks: the two paths meet.
        fund = world.hold(world.bank, world.purse, 50)
        exact = [fund, world.post(fund), *(world.move(world.bank, world.wallet, 1, id=each) for each in ids[::-1])]
        batches = [safe, exact] if number % 2 else [exact, safe]
        await _all_at_once(ledger, batches)
        stored = await ledger.lookup_transfers(ids)
        assert len({(t.debit_account_id, t.credit_account_id) for t in stored.values()}) == 1
    assert (await ledger.verify()).holds


async def test_a_hold_raced_by_post_void_and_expiry_ends_once(ledger: LedgerUnderTest) -> None:
    world = await open_world(ledger)
    assert list(await ledger.apply([world.move(world.bank, world.wallet, 10_000)])) == ["ok"]
    endings: Counter[str] = Counter()
    for number in range(40):
        hold = world.hold(world.wallet, world.clearing, 10, timeout_s=60)
        assert list(await ledger.apply([hold])) == ["ok"]
        post, void = [world.post(hold)], [world.void(hold), world.move(world.bank, world.wallet, 1)]
        if number % 4 == 0:
            await ledger.let_expire([hold.id])
        if number % 2:
            posted, voided, expired = await asyncio.gather(ledger.apply(post), ledger.apply(void), ledger.expire(10))
        else:
            voided, posted, expired = await asyncio.gather(ledger.apply(void), ledger.apply(post), ledger.expire(10))
        won = (posted[0] == "ok", voided[0] == "ok", expired == 1)
        assert sum(won) == 1, (posted, voided, expired)
        endings[("post", "void", "expiry")[won.index(True)]] += 1
    assert endings["expiry"] == 10, endings
    assert min(endings["post"], endings["void"]) > 0, endings
    wallet = (await ledger.lookup_accounts([world.wallet]))[world.wallet]
    assert (wallet.debits_pending_minor, wallet.debits_posted_minor) == (0, 10 * endings["post"])
    assert (await ledger.verify()).holds


async def test_holds_expire_once_however_many_release_them(ledger: LedgerUnderTest) -> None:
    world = await open_world(ledger)
    holds = [world.hold(world.bank, world.clearing, 1, timeout_s=60) for _ in range(100)]
    assert set(await ledger.apply(holds)) == {"ok"}
    await ledger.let_expire([hold.id for hold in holds])
    released = 0
    for _ in range(10):
        released += sum(await asyncio.gather(*(ledger.expire(15) for _ in range(4))))
    assert released == 100
    assert (await ledger.lookup_accounts([world.bank]))[world.bank].debits_pending_minor == 0
    assert (await ledger.verify()).holds
