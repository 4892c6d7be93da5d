"""The authenticator: a secret counts from the moment it is made, and bad signatures cost next to nothing."""

import asyncio
import time
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.services.access import keys
from core.services.access.keys import Authenticator, Caller, SignedRequest, StoredKey
from core.services.access.nonces import RecentNonces
from core.services.problems import Refusal
from wire.signing import canonical, sign

KEY = StoredKey("fk_1", UUID(int=1), "service", None, "shop", frozenset({"*"}), None, b"old")


class Finder:
    """The keys as they are now; counts who asks."""

    def __init__(self, *stored: StoredKey) -> None:
        self.keys = {key.id: key for key in stored}
        self.asked: list[str] = []
        self.was_asked, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def find_key(self, key_id: str) -> StoredKey | None:
        found = self.keys.get(key_id)
        self.asked.append(key_id)
        self.was_asked.set()
        await self.answers.wait()
        return found


class Nonces:
    """Every nonce is new, and where there is no room none can be claimed."""

    is_full = False

    async def claim(self, tenant_id: UUID, key_id: str, nonce: str) -> bool:
        if self.is_full:
            raise OSError("no space left on the device")
        return True


class Vault:
    """Secrets lie open."""

    def open_bytes(self, ciphertext: bytes, *, bound_to: str) -> bytes:
        return ciphertext


def authenticator(finder: Finder) -> Authenticator:
    return Authenticator(finder, Nonces(), Vault())  # type: ignore[arg-type]


def signed(secret: str, key_id: str = KEY.id, method: str = "GET", **more: str) -> SignedRequest:
    fields: dict[str, Any] = {"method": method, "path": "/", "query": "", "body": b"", "key_id": key_id,
                              "timestamp": str(int(time.time())), "nonce": uuid4().hex} | more  # fmt: skip
    return SignedRequest(**fields, signature=sign(secret, canonical(**fields)))


async def refused(asked: Authenticator, request: SignedRequest) -> str:
    with pytest.raises(Refusal) as refusal:
        await asked.authenticate(request)
    return refusal.value.code


async def test_what_was_signed_under_an_idempotency_key_counts_under_no_other() -> None:
    asked = authenticator(Finder(KEY))
    request = signed("old", method="POST", idempotency_key="order-1")
    await asked.authenticate(request)
    for changed in ("order-2", "", None):
        assert await refused(asked, replace(request, idempotency_key=changed)) == "unauthenticated"


async def test_a_signed_idempotency_key_cannot_be_made_into_a_user() -> None:
    asked = authenticator(Finder(replace(KEY, acts_for_users=True)))
    request = signed("old", method="POST", idempotency_key="order-1")
    for user in ("order-1", "", "order-1 order-1"):
        for key in (None, "", "order-1"):
            moved = replace(request, on_behalf_of=user, idempotency_key=key)
            if (user, key) != ("", "order-1"):
                assert await refused(asked, moved) == "unauthenticated"


async def test_a_caller_that_leaves_its_idempotency_key_unsigned_is_heard() -> None:
    asked = authenticator(Finder(KEY))
    await asked.authenticate(replace(signed("old", method="POST"), idempotency_key="order-1"))


async def test_a_new_secret_counts_at_once_beside_the_old_one() -> None:
    finder = Finder(KEY)
    asked = authenticator(finder)
    await asked.authenticate(signed("old"))
    finder.keys[KEY.id] = replace(KEY, secret=b"new", secret_next=b"old")
    callers = [await asked.authenticate(signed(secret)) for secret in ("new", "old", "new")]
    assert [caller.key_id for caller in callers] == [KEY.id] * 3
    assert len(finder.asked) == 2


async def test_a_look_up_that_began_before_the_rotation_refuses_nobody() -> None:
    finder = Finder(KEY)
    asked = authenticator(finder)
    finder.answers.clear()
    early = asyncio.create_task(asked.authenticate(signed("old")))
    await finder.was_asked.wait()
    finder.keys[KEY.id] = replace(KEY, secret=b"new", secret_next=b"old")
    late = asyncio.create_task(asked.authenticate(signed("new")))
    await asyncio.sleep(0)
    finder.answers.set()
    assert {(await each).key_id for each in (early, late)} == {KEY.id}


async def test_a_key_that_was_made_a_moment_ago_is_known_though_it_was_refused_before() -> None:
    finder = Finder()
    asked = authenticator(finder)
    assert await refused(asked, signed("old")) == "unauthenticated"
    finder.keys[KEY.id] = KEY
    assert (await asked.authenticate(signed("old"))).key_id == KEY.id


async def test_bad_signatures_without_end_cost_one_look_up_per_key_and_pause() -> None:
    finder = Finder(KEY)
    asked = authenticator(finder)
    await asked.authenticate(signed("old"))
    began_s = time.monotonic()

    async def attack(key_id: str) -> None:
        for _ in range(3):
            assert await refused(asked, signed("guess", key_id)) == "unauthenticated"

    attacks = [attack(key_id) for key_id in (KEY.id, "fk_nobody") for _ in range(100)]

    async def work() -> list[Caller]:
        return [await asked.authenticate(signed("old")) for _ in range(100)]

    await asyncio.gather(work(), *attacks)
    pauses = (time.monotonic() - began_s) / keys._PAUSE_S
    for key_id in (KEY.id, "fk_nobody"):
        assert finder.asked.count(key_id) <= 2 + pauses
    assert len(finder.asked) < 40


async def test_a_revoked_key_is_refused_by_the_first_request_after_it_was_looked_up_anew() -> None:
    finder = Finder(KEY)
    asked = Authenticator(finder, Nonces(), Vault(), fresh_s=0)  # type: ignore[arg-type]
    await asked.authenticate(signed("old"))
    finder.keys[KEY.id] = replace(KEY, revoked=True)
    assert await refused(asked, signed("old")) == "unauthenticated"


async def test_the_names_of_strangers_are_forgotten_and_a_known_key_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_REMEMBERED", 10)
    finder = Finder(KEY)
    asked = authenticator(finder)
    await asked.authenticate(signed("old"))
    await asyncio.gather(*(refused(asked, signed("guess", f"fk_{n}")) for n in range(100, 150)))
    assert len(asked._known) <= 11
    await asked.authenticate(signed("old"))
    assert finder.asked.count(KEY.id) == 1


async def test_a_read_is_answered_where_no_nonce_can_be_written_and_a_write_is_not() -> None:
    nonces = Nonces()
    asked = Authenticator(Finder(KEY), nonces, Vault())  # type: ignore[arg-type]
    nonces.is_full = True
    read = signed("old")
    assert (await asked.authenticate(read)).key_id == KEY.id
    assert await refused(asked, read) == "replayed_nonce"
    with pytest.raises(OSError, match="no space"):
        await asked.authenticate(signed("old", method="POST"))


async def test_a_read_is_refused_by_its_signature_and_its_time_as_a_write_is() -> None:
    asked = authenticator(Finder(KEY))
    assert await refused(asked, signed("guess")) == "unauthenticated"
    assert await refused(asked, replace(signed("old"), timestamp="1000")) == "stale_timestamp"


def test_of_the_nonces_of_reads_the_oldest_are_forgotten() -> None:
    recent = RecentNonces(keep=2)
    claims = [recent.claim(KEY.tenant_id, KEY.id, nonce) for nonce in ("first", "second", "first", "third", "first")]
    assert claims == [True, True, False, True, True]
    assert not recent.claim(KEY.tenant_id, KEY.id, "third")
    assert recent.claim(KEY.tenant_id, "fk_2", "third")


async def test_who_comes_as_a_look_up_ends_lets_one_of_its_own_begin() -> None:
    finder = Finder(KEY)
    finder.answers.clear()
    asked = authenticator(finder)
    first = asyncio.create_task(asked.authenticate(signed("old")))
    await finder.was_asked.wait()

    async def comes_after_its_last_step() -> str:
        await finder.answers.wait()
        return await refused(asked, signed("forged"))

    second = asyncio.create_task(comes_after_its_last_step())
    await asyncio.sleep(0)
    finder.answers.set()
    # Were the look-up that is done awaited again and again, nothing else would ever run here.
    assert await second == "unauthenticated"
    assert (await first).key_id == KEY.id
    assert len(finder.asked) == 2
