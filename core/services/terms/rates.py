"""The rate table: terms of pairs and their rates, each version kept with its source and time, none ever edited."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

from core.domain.rates import Pair, Rate, RateError, is_from_future
from core.services.cursors import decode_cursor, encode_cursor, number_of
from core.services.problems import Refusal, require_currency
from schemas.exchange import PairRequest, PairView, RateList, RateRequest, RateView


@dataclass(frozen=True, slots=True)
class StoredPair:
    """One version of a pair's terms as it is stored."""

    pair: Pair
    version: int
    enabled: bool
    spread_basis_points: int
    rate_max_age_s: int
    quote_ttl_s: int
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class StoredRate:
    """One version of a pair's rate as it is stored."""

    pair: Pair
    version: int
    rate: Rate
    source: str
    observed_at: datetime
    recorded_at: datetime
    recorded_by: str


@dataclass(frozen=True, slots=True)
class Observed:
    """A rate that was told, checked and not yet recorded."""

    pair: Pair
    rate: Rate
    source: str
    observed_at: datetime


class Rates(Protocol):
    """Where pairs and rates are kept; a version is added and never edited."""

    async def lock_book(self, uow: Any, tenant_id: UUID) -> datetime:
        """Let one writer in at a time; return the database's time after the wait."""
        ...

    async def latest_pairs(self, uow: Any, tenant_id: UUID) -> Sequence[StoredPair]: ...

    async def insert_pair(self, uow: Any, tenant_id: UUID, pair: StoredPair) -> None: ...

    async def known_rates(self, uow: Any, tenant_id: UUID, told: Sequence[Observed]) -> set[Observed]:
        """Return those that are recorded already."""
        ...

    async def newest_versions(self, uow: Any, tenant_id: UUID, pairs: Sequence[Pair]) -> Mapping[Pair, int]: ...

    async def insert_rates(self, uow: Any, tenant_id: UUID, rates: Sequence[StoredRate]) -> None: ...

    async def rates_in_force(self, uow: Any, tenant_id: UUID) -> Sequence[StoredRate]: ...

    async def page_of_rates(
        self, uow: Any, tenant_id: UUID, pair: Pair, before: int | None, limit: int
    ) -> Sequence[StoredRate]: ...


class RatesRefusedError(Exception):
    """Some rates cannot be recorded, so none was: each by its place, with its refusal."""

    def __init__(self, faults: Sequence[tuple[int, Refusal]]) -> None:
        super().__init__(f"{len(faults)} rates are refused")
        self.faults = faults


async def set_pair(uow: Any, rates: Rates, tenant_id: UUID, actor: str, request: PairRequest) -> tuple[PairView, bool]:
    """Set the terms of a pair as its next version; return them and whether they are new. A repeat changes nothing.

    Raises Refusal: unknown_currency, pair_inverted.
    """
    for field, code in (("base", request.base), ("counter", request.counter)):
        require_currency(code, field)
    now = await rates.lock_book(uow, tenant_id)
    pairs = {each.pair: each for each in await rates.latest_pairs(uow, tenant_id)}
    pair = Pair(request.base, request.counter)
    if pair.inverse in pairs:
        raise _inverted(pair.inverse)
    newest = pairs.get(pair)
    if newest is not None and pair_view(newest).pair == request:
        return pair_view(newest), False
    made = StoredPair(
        pair=pair,
        version=newest.version + 1 if newest else 1,
        enabled=request.enabled,
        spread_basis_points=request.spread_basis_points,
        rate_max_age_s=request.rate_max_age_s,
        quote_ttl_s=request.quote_ttl_s,
        created_at=now,
        created_by=actor,
    )
    await rates.insert_pair(uow, tenant_id, made)
    return pair_view(made), True


async def list_pairs(uow: Any, rates: Rates, tenant_id: UUID) -> list[PairView]:
    """Return the newest terms of every pair, disabled ones too."""
    return [pair_view(each) for each in await rates.latest_pairs(uow, tenant_id)]


async def record_rates(
    uow: Any, rates: Rates, tenant_id: UUID, actor: str, told: Sequence[RateRequest]
) -> list[RateView]:
    """Record rates as the next versions of their pairs, in order, and return those that are new.

    What is recorded already, with the same source and time, is left out. Raises RatesRefusedError with every fault:
    rate_malformed, pair_unknown, pair_inverted, rate_from_future; then nothing was recorded.
    """
    now = await rates.lock_book(uow, tenant_id)
    pairs = {each.pair for each in await rates.latest_pairs(uow, tenant_id)}
    faults: list[tuple[int, Refusal]] = []
    observed: dict[Observed, None] = {}
    for place, request in enumerate(told):
        try:
            observed[_checked(request, pairs, now)] = None
        except Refusal as refusal:
            faults.append((place, refusal))
    if faults:
        raise RatesRefusedError(faults)
    known = await rates.known_rates(uow, tenant_id, list(observed))
    versions = dict(await rates.newest_versions(uow, tenant_id, sorted({each.pair for each in observed})))
    made = []
    for each in observed:
        if each in known:
            continue
        versions[each.pair] = versions.get(each.pair, 0) + 1
        made.append(StoredRate(each.pair, versions[each.pair], each.rate, each.source, each.observed_at, now, actor))
    if made:
        await rates.insert_rates(uow, tenant_id, made)
    return [rate_view(each) for each in made]


async def list_rates(uow: Any, rates: Rates, tenant_id: UUID) -> RateList:
    """Return the rate in force of every pair."""
    return RateList(items=[rate_view(each) for each in await rates.rates_in_force(uow, tenant_id)])


async def list_versions(
    uow: Any, rates: Rates, tenant_id: UUID, pair: Pair, cursor: str | None, limit: int
) -> RateList:
    """Return versions of a pair's rate, newest first. Raises Refusal `cursor_malformed`."""
    before = None
    if cursor is not None:
        before = number_of(decode_cursor(cursor, 1)[0])
    found = await rates.page_of_rates(uow, tenant_id, pair, before, limit + 1)
    following = encode_cursor(str(found[limit - 1].version)) if len(found) > limit else None
    return RateList(items=[rate_view(each) for each in found[:limit]], next_cursor=following)


def pair_view(pair: StoredPair) -> PairView:
    """Return the terms as they are shown."""
    return PairView(
        version=pair.version,
        created_at=pair.created_at,
        created_by=pair.created_by,
        pair=PairRequest(
            base=pair.pair.base,
            counter=pair.pair.counter,
            spread_basis_points=pair.spread_basis_points,
            rate_max_age_s=pair.rate_max_age_s,
            quote_ttl_s=pair.quote_ttl_s,
            enabled=pair.enabled,
        ),
    )


def rate_view(rate: StoredRate) -> RateView:
    """Return the rate as it is shown."""
    return RateView(
        base=rate.pair.base,
        counter=rate.pair.counter,
        version=rate.version,
        rate=str(rate.rate),
        source=rate.source,
        observed_at=rate.observed_at,
        recorded_at=rate.recorded_at,
        recorded_by=rate.recorded_by,
    )


def _checked(request: RateRequest, pairs: set[Pair], now: datetime) -> Observed:
    pair = Pair(request.base, request.counter)
    try:
        rate = Rate.parse(request.rate)
    except RateError as error:
        raise Refusal("rate_malformed", str(error), field="rate") from error
    if pair not in pairs:
        if pair.inverse in pairs:
            raise _inverted(pair.inverse)
        text = f"set the terms of {pair} first: POST /v1/exchange-pairs or fleet rates pair"
        raise Refusal("pair_unknown", text, field="base")
    observed_at = (request.observed_at or now).astimezone(UTC)
    if is_from_future(observed_at, now):
        text = f"{observed_at:%Y-%m-%dT%H:%M:%SZ} has not come: send the time at which the source observed the rate"
        raise Refusal("rate_from_future", text, field="observed_at")
    return Observed(pair, rate, request.source, observed_at)


def _inverted(kept: Pair) -> Refusal:
    # One rate serves both directions: two that are told apart could disagree, and pay whoever goes round.
    text = f"the pair is kept as {kept}: tell what one {kept.base} is worth in {kept.counter}"
    return Refusal("pair_inverted", text, field="base")
