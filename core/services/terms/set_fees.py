"""Set fee rules, checked before they are kept; show them; and try a payment on them without making it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from core.domain.fee_checks import check_rule
from core.domain.fee_language import FeeError
from core.domain.fee_legs import plain_legs
from core.domain.fees import Judged, business_time, compile_rule, judge, pricing_of, shelf_of
from core.domain.ids import derive_id
from core.domain.registry import OPERATIONS
from core.services.problems import Refusal, require_currency
from core.services.terms.fees import (
    BookState,
    FeeRuleReader,
    Payment,
    StoredRule,
    refusal_of,
    rules_in_force,
)
from core.services.wallets.wallets import Wallet
from schemas.fees import (
    FeeDryRunRequest,
    FeeDryRunView,
    FeeLegView,
    FeePhase,
    FeeRuleOutcome,
    FeeRuleRequest,
    FeeRuleTrace,
    FeeRuleView,
)


class FeeRuleBook(FeeRuleReader, Protocol):
    """Where rules are kept; a version is added and never edited."""

    async def lock_book(self, uow: Any, tenant_id: UUID) -> datetime:
        """Raise the tenant's revision, one writer at a time; return the database's time after the wait."""
        ...

    async def versions_of(self, uow: Any, tenant_id: UUID, rule_id: UUID) -> Sequence[StoredRule]: ...

    async def latest_rules(self, uow: Any, tenant_id: UUID) -> Sequence[StoredRule]: ...

    async def insert_version(self, uow: Any, tenant_id: UUID, rule: StoredRule) -> None: ...


class ShareWallets(Protocol):
    """Finds the wallets that get shares."""

    async def find_wallets(self, uow: Any, ids: Sequence[UUID]) -> Mapping[UUID, Wallet]: ...


def rule_id_of(tenant_id: UUID, name: str) -> UUID:
    """Return the id of the tenant's rule of this name, whether it exists or not."""
    return derive_id(tenant_id, "fee-rule", name)


async def set_rule(
    uow: Any, book: FeeRuleBook, wallets: ShareWallets, tenant_id: UUID, actor: str, request: FeeRuleRequest
) -> tuple[FeeRuleView, bool]:
    """Keep a rule as the next version of its name; return it and whether it is new. A repeat changes nothing.

    Raises Refusal, in this order: unknown_currency, operation_not_supported, fee_syntax, fee_expression_forbidden,
    fee_name_unknown, fee_result_type, fee_rule_fails, fee_sample_differs, fee_account_unknown.
    """
    require_currency(request.currency)
    operation = OPERATIONS.get(request.operation)
    if operation is not None and not operation.takes_fees:
        raise Refusal("operation_not_supported", f"no fees are taken of {request.operation}", field="operation")
    rule_id = rule_id_of(tenant_id, request.name)
    now = await book.lock_book(uow, tenant_id)
    state = await book.book_state(uow, tenant_id)
    try:
        rule = compile_rule(request, rule_id, 1, now, None)
        check_rule(rule, request.samples, now, state.zone)
    except FeeError as error:
        raise refusal_of(error) from error
    await _check_accounts(uow, wallets, tenant_id, request)
    versions = await book.versions_of(uow, tenant_id, rule_id)
    if versions and versions[0].enabled and versions[0].request == request:
        return view_of(versions[0]), False
    # Never from before now: what was priced until now was priced without it.
    begins = max(now, request.valid_from or now)
    return await _add(uow, book, tenant_id, StoredRule(
        rule_id, len(versions) + 1, request.name, True, request, begins, now, actor
    )), True  # fmt: skip


async def disable_rule(uow: Any, book: FeeRuleBook, tenant_id: UUID, actor: str, rule_id: UUID) -> FeeRuleView:
    """Add a version that takes nothing, from now on; a rule that is disabled stays as it is.

    Payments that were priced keep their fees. Raises Refusal `not_found`.
    """
    now = await book.lock_book(uow, tenant_id)
    versions = await book.versions_of(uow, tenant_id, rule_id)
    if not versions:
        raise Refusal("not_found", "there is no such fee rule")
    newest = versions[0]
    if not newest.enabled:
        return view_of(newest)
    return await _add(uow, book, tenant_id, StoredRule(
        rule_id, newest.version + 1, newest.name, False, newest.request, now, now, actor
    ))  # fmt: skip


async def list_rules(uow: Any, book: FeeRuleBook, tenant_id: UUID) -> list[FeeRuleView]:
    """Return the newest version of every rule, by operation, currency, priority and name; disabled ones too."""
    found = await book.latest_rules(uow, tenant_id)
    return [
        view_of(rule)
        for rule in sorted(
            found, key=lambda rule: (rule.request.operation, rule.request.currency, rule.request.priority, rule.name)
        )
    ]


async def list_versions(uow: Any, book: FeeRuleBook, tenant_id: UUID, rule_id: UUID) -> list[FeeRuleView]:
    """Return every version of a rule, the newest first. Raises Refusal `not_found`."""
    found = await book.versions_of(uow, tenant_id, rule_id)
    if not found:
        raise Refusal("not_found", "there is no such fee rule")
    return [view_of(rule) for rule in found]


async def dry_run(uow: Any, book: FeeRuleBook, tenant_id: UUID, request: FeeDryRunRequest) -> FeeDryRunView:
    """Return the fees of a payment that is not made, and what became of every rule that is about such payments.

    Raises Refusal: fee_rule_fails, fee_exceeds_amount.
    """
    state: BookState = await book.book_state(uow, tenant_id)
    at = request.at or state.now
    stored = [
        rule
        for rule in await book.load_rules(uow, tenant_id, at)
        if (rule.request.operation, rule.request.currency) == (request.operation, request.currency)
    ]
    side = (request.operation, request.currency, request.bought)
    rules = [rule for rule in rules_in_force(stored) if rule.shelf == side]
    rules.sort(key=lambda rule: (rule.priority, rule.name, rule.version))
    payment = Payment(request.amount_minor, request.currency, request.operation, request.channel)
    asked = payment.at(business_time(at, state.zone), request.tier)
    try:
        judged = list(judge(shelf_of(rules), asked))
        pricing = pricing_of([each for each in judged if each.outcome is FeeRuleOutcome.APPLIED], asked)
    except FeeError as error:
        raise Refusal(error.code, str(error)) from error
    pre_minor, post_minor = pricing.minor(FeePhase.PRE), pricing.minor(FeePhase.POST)
    return FeeDryRunView(
        legs=[FeeLegView.model_validate(leg | {"currency": request.currency}) for leg in plain_legs(pricing.legs)],
        pre_minor=pre_minor,
        post_minor=post_minor,
        debited_minor=request.amount_minor + pre_minor,
        received_minor=request.amount_minor - post_minor,
        rules=[_trace(each) for each in judged],
    )


def view_of(rule: StoredRule) -> FeeRuleView:
    """Return the version as it is shown."""
    return FeeRuleView(
        id=rule.id,
        version=rule.version,
        enabled=rule.enabled,
        name=rule.name,
        valid_from=rule.valid_from,
        created_at=rule.created_at,
        created_by=rule.created_by,
        rule=rule.request.model_dump(mode="json"),
    )


async def _add(uow: Any, book: FeeRuleBook, tenant_id: UUID, rule: StoredRule) -> FeeRuleView:
    await book.insert_version(uow, tenant_id, rule)
    return view_of(rule)


async def _check_accounts(uow: Any, wallets: ShareWallets, tenant_id: UUID, request: FeeRuleRequest) -> None:
    wanted = [share.wallet_id for share in request.shares if share.wallet_id is not None]
    found = await wallets.find_wallets(uow, wanted) if wanted else {}
    for place, share in enumerate(request.shares):
        if share.wallet_id is None:
            continue
        wallet = found.get(share.wallet_id)
        if wallet is None or wallet.tenant_id != tenant_id or wallet.currency != request.currency:
            text = f"wallet {share.wallet_id} is none of this tenant's in {request.currency}"
            raise Refusal("fee_account_unknown", text, field=f"shares.{place}.wallet_id")


def _trace(judged: Judged) -> FeeRuleTrace:
    rule = judged.rule
    return FeeRuleTrace(
        name=rule.name,
        rule_id=rule.id,
        version=rule.version,
        phase=rule.phase,
        outcome=judged.outcome,
        fee_minor=judged.fee_minor,
        when=rule.when.text,
    )
