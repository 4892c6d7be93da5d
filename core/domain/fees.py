"""Fees: which rules apply to a payment, and which movements follow. Pure.

Rules stand in an index by operation and currency; of a thousand, a payment meets the few of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from core.domain.fee_amounts import rate, split
from core.domain.fee_language import Expression, FeeError, compile_expression
from core.domain.fee_legs import FeeAccount, FeeLeg, sum_minor
from core.domain.registry import OPERATIONS
from schemas.fees import FeePhase, FeeRate, FeeRuleOutcome, FeeRuleRequest, FeeShare
from schemas.money import MAX_AMOUNT_MINOR
from schemas.operations import OperationType

if TYPE_CHECKING:
    import cel

_KNOWN_MOST: Final = 4096
"""Of how many sets of values a shelf remembers which rules apply, and of how many payments what they take."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_FOR_EVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BusinessTime:
    """A moment, and its hour and day (1 is Monday) in the tenant's business timezone."""

    at: datetime
    hour: int
    weekday: int


class FeeInput(NamedTuple):
    """What fees may depend on. `amount_minor` is in minor units of `currency`."""

    amount_minor: int
    currency: str
    operation: str
    time: BusinessTime
    tier: str = ""
    channel: str = ""
    wallet_id: UUID | None = None
    """The wallet whose money it is; a share of its own is not taken from it."""
    bought: bool = False
    """Whether it is what an exchange buys: that is priced apart from what is paid, each in its own currency."""


_READERS: Final[Mapping[str, Callable[[FeeInput], Any]]] = {
    "amount_minor": attrgetter("amount_minor"),
    "currency": attrgetter("currency"),
    "operation": attrgetter("operation"),
    "tier": attrgetter("tier"),
    "channel": attrgetter("channel"),
    "at": attrgetter("time.at"),
    "hour": attrgetter("time.hour"),
    "weekday": attrgetter("time.weekday"),
}
"""How each variable of an expression is read."""


@dataclass(frozen=True, slots=True)
class FeeRule:
    """One version of a rule, compiled, in force from `from_at` until before `until_at`."""

    id: UUID
    version: int
    name: str
    operation: str
    currency: str
    phase: FeePhase
    priority: int
    last: bool
    when: Expression
    fee: FeeRate | Expression
    minimum_minor: int
    maximum_minor: int
    accounts: tuple[FeeAccount, ...]
    parts: tuple[int, ...]
    leg_names: tuple[str, ...]
    from_at: datetime
    until_at: datetime | None

    @property
    def shelf(self) -> "ShelfKey":
        """Where it stands: a fee out of an exchange is taken of what is bought, in that currency."""
        bought = self.phase is FeePhase.POST and OPERATIONS[OperationType(self.operation)].exchanges
        return self.operation, self.currency, bought

    @property
    def variables(self) -> frozenset[str]:
        """What the rule reads."""
        return self.when.variables | (self.fee.variables if isinstance(self.fee, Expression) else frozenset())


class Judged(NamedTuple):
    """A rule that was looked at, what became of it, and its fee in minor units."""

    rule: FeeRule
    outcome: FeeRuleOutcome
    fee_minor: int = 0


class Pricing(NamedTuple):
    """The fees of one payment; the legs of each rule that fired sum to its fee, all of them to the totals."""

    legs: tuple[FeeLeg, ...]
    fired: tuple[Judged, ...]

    def minor(self, phase: FeePhase) -> int:
        """Return the sum of the legs of a phase, in minor units."""
        return sum_minor(self.legs, phase)


FREE: Final = Pricing((), ())
"""The pricing of a payment that no rule applies to."""


@dataclass(frozen=True, slots=True)
class FeeShelf:
    """The rules of one operation and currency, in the order in which they are looked at, and what they read."""

    rules: tuple[FeeRule, ...]
    variables: frozenset[str]
    known: "KnownConditions" = field(default_factory=lambda: KnownConditions(_NEVER, _NEVER), compare=False, repr=False)


@dataclass(slots=True)
class KnownConditions:
    """Which rules of a shelf apply, by the values that they read, and what they take: the same values give the same.

    It holds from `since` until before `until`, while the same rules are in force.
    """

    since: datetime
    until: datetime
    in_force: tuple[FeeRule, ...] = ()
    reads: tuple[Callable[[FeeInput], Any], ...] = ()
    shares_wallets: bool = False
    applying: dict[tuple[Any, ...], tuple[FeeRule, ...]] = field(default_factory=dict)
    priced: dict[tuple[int, UUID | None, tuple[Any, ...]], Pricing] = field(default_factory=dict)
    alike: dict[tuple[Any, ...], Pricing] = field(default_factory=dict)
    """By what the rules take: most fees are few amounts, over and over."""


ShelfKey = tuple[str, str, bool]
"""Operation, currency, and whether that is what an exchange buys."""
FeeIndex = Mapping[ShelfKey, FeeShelf]
"""A tenant's rules by where they stand."""


def business_time(at: datetime, zone: ZoneInfo) -> BusinessTime:
    """Return the moment with hour and weekday as clocks and calendars of the zone show them."""
    local = at.astimezone(zone)
    return BusinessTime(at, local.hour, local.isoweekday())


def compile_rule(
    request: FeeRuleRequest, rule_id: UUID, version: int, from_at: datetime, until_at: datetime | None
) -> FeeRule:
    """Return the rule, ready to be evaluated. Raises FeeError for an expression that cannot be kept."""
    return FeeRule(
        id=rule_id,
        version=version,
        name=request.name,
        operation=request.operation,
        currency=request.currency,
        phase=request.phase,
        priority=request.priority,
        last=request.last,
        when=compile_expression(request.when, "when"),
        fee=request.fee
        if isinstance(request.fee, FeeRate)
        else compile_expression(request.fee.expression, "fee.expression"),
        minimum_minor=request.minimum_minor or 0,
        maximum_minor=MAX_AMOUNT_MINOR if request.maximum_minor is None else request.maximum_minor,
        accounts=tuple(_account(share) for share in request.shares),
        parts=tuple(share.parts for share in request.shares),
        leg_names=tuple(f"fee:{request.name}:{place}" for place in range(1, len(request.shares) + 1)),
        from_at=from_at,
        until_at=until_at,
    )


def index_rules(rules: Iterable[FeeRule]) -> FeeIndex:
    """Put rules on shelves by operation and currency, each in the order of priority, then name."""
    shelves: dict[ShelfKey, list[FeeRule]] = {}
    for rule in sorted(rules, key=lambda rule: (rule.priority, rule.name, rule.version)):
        shelves.setdefault(rule.shelf, []).append(rule)
    return {key: shelf_of(rules) for key, rules in shelves.items()}


def shelf_of(rules: Sequence[FeeRule]) -> FeeShelf:
    """Return the rules, in this order, as one shelf."""
    return FeeShelf(tuple(rules), frozenset().union(*(rule.variables for rule in rules)))


def price(index: FeeIndex, asked: FeeInput) -> Pricing:
    """Return the fees of one payment.

    Raises FeeError: fee_rule_fails (a rule has no value for this payment: none is guessed), fee_exceeds_amount (POST
    fees leave nothing of the amount).
    """
    shelf = index.get((asked.operation, asked.currency, asked.bought))
    if shelf is None:
        return FREE
    known, at = shelf.known, asked.time.at
    if not known.since <= at < known.until:
        _look_anew(shelf, at)
    told = tuple([read(asked) for read in known.reads])
    key = asked.amount_minor, asked.wallet_id if known.shares_wallets else None, told
    found = known.priced.get(key)
    if found is None:
        found = _priced(shelf, asked, told)
        if len(known.priced) >= _KNOWN_MOST:
            known.priced.clear()
        known.priced[key] = found
    return found


def _priced(shelf: FeeShelf, asked: FeeInput, told: tuple[Any, ...]) -> Pricing:
    context = None
    fired: list[Judged] = []
    for rule in _applying(shelf, asked, told):
        if context is None and isinstance(rule.fee, Expression):
            context = context_of(shelf.variables, asked)
        fee_minor = fee_of(rule, asked.amount_minor, context)
        if fee_minor:
            fired.append(Judged(rule, FeeRuleOutcome.APPLIED, fee_minor))
    return _alike(shelf.known, pricing_of(fired, asked), asked) if fired else FREE


def _alike(known: KnownConditions, pricing: Pricing, asked: FeeInput) -> Pricing:
    """Return the first pricing that was found of the same fees: who meets the same object writes it once."""
    if len(known.alike) >= _KNOWN_MOST:
        known.alike.clear()
    payer = asked.wallet_id if known.shares_wallets else None
    key = payer, *[(id(each.rule), each.fee_minor) for each in pricing.fired]
    return known.alike.setdefault(key, pricing)


def both(paid: Pricing, bought: Pricing) -> Pricing:
    """Return the fees of an exchange: those of what is paid, then those out of what is bought."""
    return Pricing(paid.legs + bought.legs, paid.fired + bought.fired) if bought.legs else paid


def _applying(shelf: FeeShelf, asked: FeeInput, told: tuple[Any, ...]) -> tuple[FeeRule, ...]:
    """Return the rules whose conditions hold, in order. Raises FeeError `fee_rule_fails`.

    The same as `judge` finds, but a condition is evaluated once for each set of values that it reads: many payments are
    alike in what rules look at, and evaluation costs more than all the rest of pricing.
    """
    known = shelf.known
    found = known.applying.get(told)
    if found is None:
        context, over = context_of(shelf.variables, asked), set[FeePhase]()
        rules = []
        for rule in known.in_force:
            if rule.phase not in over and applies(rule, context):
                rules.append(rule)
                if rule.last:
                    over.add(rule.phase)
        found = tuple(rules)
        if len(known.applying) >= _KNOWN_MOST:
            known.applying.clear()
        known.applying[told] = found
    return found


def _look_anew(shelf: FeeShelf, at: datetime) -> None:
    """Note which rules are in force at a moment, and between which moments they are the same."""
    known = shelf.known
    turns = {each for rule in shelf.rules for each in (rule.from_at, rule.until_at) if each is not None}
    known.since = max((each for each in turns if each <= at), default=_NEVER)
    known.until = min((each for each in turns if each > at), default=_FOR_EVER)
    known.in_force = tuple(
        rule for rule in shelf.rules if rule.from_at <= at and (rule.until_at is None or at < rule.until_at)
    )
    known.reads = tuple(_READERS[name] for name in sorted({n for rule in known.in_force for n in rule.variables}))
    known.shares_wallets = any(account.wallet_id is not None for rule in known.in_force for account in rule.accounts)
    known.applying.clear()
    known.priced.clear()
    known.alike.clear()


def judge(shelf: FeeShelf, asked: FeeInput) -> Iterator[Judged]:
    """Look at every rule of the shelf, in order. Raises FeeError `fee_rule_fails`."""
    context = context_of(shelf.variables, asked)
    at = asked.time.at
    over: set[FeePhase] = set()
    for rule in shelf.rules:
        if at < rule.from_at or (rule.until_at is not None and at >= rule.until_at):
            yield Judged(rule, FeeRuleOutcome.NOT_IN_FORCE)
        elif rule.phase in over:
            yield Judged(rule, FeeRuleOutcome.AFTER_LAST)
        elif not applies(rule, context):
            yield Judged(rule, FeeRuleOutcome.CONDITION_FALSE)
        else:
            if rule.last:
                over.add(rule.phase)
            fee_minor = fee_of(rule, asked.amount_minor, context)
            yield Judged(rule, FeeRuleOutcome.APPLIED if fee_minor else FeeRuleOutcome.NOTHING_DUE, fee_minor)


def pricing_of(fired: Sequence[Judged], asked: FeeInput) -> Pricing:
    """Return the movements of the rules that fired. Raises FeeError `fee_exceeds_amount`."""
    legs = tuple(leg for judged in fired for leg in _legs(judged, asked.wallet_id))
    pricing = Pricing(legs, tuple(fired))
    taken = pricing.minor(FeePhase.POST)
    if taken >= asked.amount_minor:
        text = f"fees of {taken} minor units out of an amount of {asked.amount_minor} leave nothing to pay"
        raise FeeError("fee_exceeds_amount", text)
    return pricing


def context_of(variables: frozenset[str], asked: FeeInput) -> "cel.Context":
    """Return the variables that are read, and no others: each costs its conversion."""
    import cel

    return cel.Context({name: _READERS[name](asked) for name in variables})


def applies(rule: FeeRule, context: "cel.Context") -> bool:
    """Whether the rule's condition holds. Raises FeeError `fee_rule_fails`, also where it is neither true nor false."""
    if rule.when.is_true:
        return True
    value = rule.when.value(context)
    if value is not True and value is not False:
        raise FeeError("fee_rule_fails", f"rule {rule.name}: {rule.when.text!r} is neither true nor false", "when")
    return value


def fee_of(rule: FeeRule, amount_minor: int, context: "cel.Context | None") -> int:
    """Return what the rule takes, in minor units, within its bounds. Raises FeeError `fee_rule_fails`.

    Only a formula needs the context.
    """
    if isinstance(rule.fee, FeeRate):
        fee_minor = rate(amount_minor, rule.fee.fixed_minor, rule.fee.basis_points, rule.fee.rounding)
    else:
        assert context is not None  # noqa: S101 - a defect, and no payment's fault
        fee_minor = rule.fee.value(context)
        # A truth value is an integer to Python, and no fee.
        if type(fee_minor) is not int or fee_minor < 0:
            text = f"rule {rule.name}: {rule.fee.text!r} is not a whole number of minor units, 0 or more"
            raise FeeError("fee_rule_fails", text, "fee.expression")
    return max(rule.minimum_minor, min(fee_minor, rule.maximum_minor))


def _legs(judged: Judged, payer: UUID | None) -> Iterator[FeeLeg]:
    rule = judged.rule
    shares = split(judged.fee_minor, rule.parts) if len(rule.parts) > 1 else (judged.fee_minor,)
    for name, account, amount_minor in zip(rule.leg_names, rule.accounts, shares, strict=True):
        if amount_minor and (account.wallet_id is None or account.wallet_id != payer):
            yield FeeLeg(name, rule.phase, account, amount_minor, rule.id, rule.version)


def _account(share: FeeShare) -> FeeAccount:
    if share.wallet_id is not None:
        return FeeAccount("WALLET", "", share.wallet_id)
    return FeeAccount(share.code, share.qualifier)
