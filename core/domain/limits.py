"""Limits: which count a payment, and whether it fits. Pure; every amount is in minor units of the limit's currency."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from core.domain.ledger import MAX_BALANCE_MINOR
from core.domain.registry import OPERATIONS, Counted
from schemas.limits import LimitKind, LimitRequest, LimitSubject
from schemas.operations import OperationType

_PRECEDENCE: Final = {kind: place for place, kind in enumerate(LimitKind)}
_LONGEST: Final = {LimitKind.DAY: timedelta(days=3), LimitKind.MONTH: timedelta(days=33)}


@dataclass(frozen=True, slots=True)
class Limit:
    """One version of a limit that is in force."""

    id: UUID
    version: int
    name: str
    kind: LimitKind
    subject: LimitSubject
    currency: str
    operation: str | None
    tier: str | None
    max_amount_minor: int | None
    max_count: int | None
    zone: ZoneInfo
    """Where its days and months begin, whatever carries the payments that it counts."""
    refund_gives_back: bool

    @classmethod
    def of(cls, limit_id: UUID, version: int, request: LimitRequest, zone: ZoneInfo) -> Self:
        """Return the limit of payments that a request asks for; a quota is none. Raises ValueError for a quota."""
        if request.currency is None:
            raise ValueError("a quota counts no payments")
        return cls(
            id=limit_id,
            version=version,
            name=request.name,
            kind=request.kind,
            subject=request.subject,
            currency=request.currency,
            operation=request.operation,
            tier=request.tier,
            max_amount_minor=request.max_amount_minor,
            max_count=request.max_count,
            zone=zone,
            refund_gives_back=request.refund_gives_back,
        )


@dataclass(frozen=True, slots=True)
class Payer:
    """Whose wallet a payment debits, and its tier."""

    wallet_id: UUID
    owner: str = ""
    tier: str = ""


class UsageKey(NamedTuple):
    """One counter: a limit, whose payments it counts, and the first day of the period.

    A tuple, as all that is made for each payment: making and hashing it takes a third of the time.
    """

    limit_id: UUID
    subject: str
    period: date


@dataclass(slots=True)
class Usage:
    """What a counter says; `amount_minor` and `count` are held and used together."""

    amount_minor: int = 0
    count: int = 0


_UNUSED: Final = Usage()


@lru_cache(maxsize=4096)  # The same few limits and days in every payment.
def _text_of(part: UUID | date) -> str:
    return str(part)


class Claim(NamedTuple):
    """What one payment asks of one limit; `key` is None for a limit per transaction, which counts nothing."""

    limit: Limit
    key: UsageKey | None


class Counting(NamedTuple):
    """A limit that counts, in the period of one moment; both also as they are kept with an intent."""

    limit: Limit
    period: date
    limit_text: str
    period_text: str


class Terms(NamedTuple):
    """What limits ask of the payments of one tier at one moment, whoever pays: found once for a whole batch."""

    alone: tuple[Claim, ...]
    """Of limits per transaction, which count nothing."""
    largest_minor: int
    """What each payment may be of, by those."""
    counted: tuple[Counting, ...]
    by_wallet: bool
    """Whether all of these count each wallet's payments alone, as most do."""

    def claims(self, subjects: Sequence[str]) -> list[Claim]:
        """Return what each of the payments asks for whose limits count it under these subjects."""
        counted = zip(self.counted, subjects, strict=True)
        counting = [Claim(each.limit, UsageKey(each.limit.id, subject, each.period)) for each, subject in counted]
        return [*self.alone, *counting]


@dataclass(frozen=True, slots=True)
class Exceeded:
    """The limit that a payment does not fit; what is left is None where that is not limited."""

    limit: Limit
    remaining_minor: int | None
    remaining_count: int | None
    renews_at: datetime | None


@dataclass(slots=True)
class Held:
    """What an intent has at one counter. An amount below zero gives back what another intent had used.

    Never changed, though not frozen: that would triple the time to make one.
    """

    key: UsageKey
    amount_minor: int
    count: int

    def record(self) -> list[Any]:
        """Return it as it is kept with the intent."""
        limit_id, subject, period = self.key
        return [_text_of(limit_id), subject, _text_of(period), self.amount_minor, self.count]

    @classmethod
    def of_record(cls, record: Sequence[Any]) -> Self:
        """Return what was kept with an intent."""
        limit_id, subject, period, amount_minor, count = record
        return cls(UsageKey(UUID(limit_id), subject, date.fromisoformat(period)), amount_minor, count)


def counts(limit: Limit, operation: str, currency: str) -> bool:
    """Whether the limit is about such payments, whoever pays."""
    if limit.currency != currency:
        return False
    if limit.operation is None:
        return OPERATIONS[OperationType(operation)].usual.counted is Counted.ALWAYS
    return limit.operation == operation


def claims_of(limits: Sequence[Limit], tenant_id: UUID, payer: Payer, at: datetime) -> list[Claim]:
    """Return what a payment asks of the limits that count it, without those of another tier than the payer's."""
    terms = terms_of(limits, payer.tier, at)
    return terms.claims(subjects_of(terms, tenant_id, payer))


def terms_of(limits: Sequence[Limit], tier: str, at: datetime) -> Terms:
    """Return what limits ask of the payments of a tier at a moment: those of another tier ask nothing."""
    asking = [limit for limit in limits if limit.tier is None or limit.tier == tier]
    alone = tuple(Claim(limit, None) for limit in asking if limit.kind is LimitKind.TRANSACTION)
    most = [one.limit.max_amount_minor for one in alone if one.limit.max_amount_minor is not None]
    periods = [
        (limit, period_of(limit.kind, at, limit.zone)) for limit in asking if limit.kind is not LimitKind.TRANSACTION
    ]
    counted = tuple(Counting(limit, period, str(limit.id), str(period)) for limit, period in periods)
    by_wallet = all(limit.subject is LimitSubject.WALLET for limit, _ in periods)
    return Terms(alone, min(most, default=MAX_BALANCE_MINOR), counted, by_wallet)


def subjects_of(terms: Terms, tenant_id: UUID, payer: Payer) -> tuple[str, ...]:
    """Return under which subject each limit that counts counts a payer."""
    if not terms.counted:
        return ()
    wallet = str(payer.wallet_id)
    if terms.by_wallet:
        return (wallet,) * len(terms.counted)
    return tuple(
        [
            wallet if kind is LimitSubject.WALLET else payer.owner if kind is LimitSubject.OWNER else str(tenant_id)
            for kind in [each.limit.subject for each in terms.counted]
        ]
    )


@lru_cache(maxsize=64)  # A whole batch asks at one moment.
def period_of(kind: LimitKind, at: datetime, zone: ZoneInfo) -> date:
    """Return the first day of the day or month that calendars of the zone show at a moment."""
    day = at.astimezone(zone).date()
    return day.replace(day=1) if kind is LimitKind.MONTH else day


@lru_cache(maxsize=4096)
def renewal_of(kind: LimitKind, period: date, zone: ZoneInfo) -> datetime:
    """Return the first moment after the period, to the second, in UTC.

    Searched for, and not built from "midnight": where clocks jump, a day may have no midnight, or there may be no
    next day. Calendars that step back over midnight, as some did until 2011, count by the date they show.
    """
    low = datetime(period.year, period.month, period.day, tzinfo=UTC) - timedelta(days=1)
    high = low + _LONGEST[kind] + timedelta(days=1)
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low).total_seconds() // 2)
        if period_of(kind, middle, zone) > period:
            high = middle
        else:
            low = middle
    return high


def fit(
    amount_minor: int, claims: Sequence[Claim], usage: MutableMapping[UsageKey, Usage]
) -> tuple[Held, ...] | Exceeded:
    """Take what a payment asks of all its limits, or of none of them; `usage` is changed where it fits.

    Of several that it does not fit, the first is named: per transaction, by month, by day, then the one with the
    least left, then by name.
    """
    exceeded = [each for each in (_exceeded(amount_minor, one, usage) for one in claims) if each is not None]
    if exceeded:
        return min(exceeded, key=_precedence)
    held = tuple(Held(one.key, amount_minor, 1) for one in claims if one.key is not None)
    for each in held:
        _add(usage, each, 1)
    return held


def release(held: Sequence[Held], usage: MutableMapping[UsageKey, Usage]) -> None:
    """Undo a `fit` whose payment failed for another reason."""
    for each in held:
        _add(usage, each, -1)


def given_back(
    original: Sequence[Held], limits: Mapping[UUID, Limit], refund_minor: int, whole_minor: int
) -> tuple[Held, ...]:
    """Return what a refund gives back to the periods in which its original was counted; counts stay.

    Of the `whole_minor` that there was to refund, `refund_minor` go back: where a limit counted less than the whole, in
    proportion, rounded down, so that parts never give more than was counted. Only limits with that rule, in force now,
    give.
    """
    return tuple(
        Held(each.key, -(refund_minor * min(each.amount_minor, whole_minor) // whole_minor), 0)
        for each in original
        if 0 < refund_minor <= whole_minor
        and each.amount_minor > 0
        and each.count  # a payment's own, and not what a refund that came back takes again
        and (limit := limits.get(each.key.limit_id)) is not None
        and limit.refund_gives_back
    )


def taken_again(refund: Sequence[Held], back_minor: int, refund_minor: int) -> tuple[Held, ...]:
    """Return what is used again of what a refund of `refund_minor` gave back, where `back_minor` of it came back.

    Rounded up, whatever became of the limits: what is refunded once more gives no more than was counted.
    """
    return tuple(
        Held(each.key, -(each.amount_minor * back_minor // refund_minor), 0)
        for each in refund
        if each.amount_minor < 0 < back_minor <= refund_minor
    )


def left(limit: Limit, usage: Usage) -> tuple[int | None, int | None]:
    """Return the amount and the number of payments that still fit; None where that is not limited."""
    amount = None if limit.max_amount_minor is None else max(0, limit.max_amount_minor - usage.amount_minor)
    count = None if limit.max_count is None else max(0, limit.max_count - usage.count)
    return amount, count


def _exceeded(amount_minor: int, one: Claim, usage: Mapping[UsageKey, Usage]) -> Exceeded | None:
    limit, key = one.limit, one.key
    if key is None:
        if limit.max_amount_minor is None or amount_minor <= limit.max_amount_minor:
            return None
        return Exceeded(limit, limit.max_amount_minor, None, None)
    minor, number = left(limit, usage.get(key) or _UNUSED)
    if (minor is None or amount_minor <= minor) and (number is None or number > 0):
        return None
    return Exceeded(limit, minor, number, renewal_of(limit.kind, key.period, limit.zone))


def _precedence(each: Exceeded) -> tuple[int, int, str]:
    least = 0 if each.remaining_count == 0 or each.remaining_minor is None else each.remaining_minor
    return _PRECEDENCE[each.limit.kind], least, each.limit.name


def _add(usage: MutableMapping[UsageKey, Usage], held: Held, sign: int) -> None:
    counter = usage.setdefault(held.key, Usage())
    counter.amount_minor += sign * held.amount_minor
    counter.count += sign * held.count
