"""Set limits, show them and what is left of them for a wallet; set the tier of a wallet."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.ids import derive_id
from core.domain.limits import Limit, UsageKey, claims_of, left, renewal_of
from core.domain.limits import Usage as Counted
from core.services.problems import Refusal, require_currency
from core.services.terms.limits import LimitBook, LimitReader, StoredLimit, UsageMove
from schemas.limits import (
    LimitKind,
    LimitRequest,
    LimitView,
    WalletLimits,
    WalletLimitView,
)
from schemas.operations import OperationType

_SHAPE: Final = ("kind", "subject", "currency", "object")
"""What a version cannot change: the counters would mix what is not alike."""


class Limits(LimitReader, Protocol):
    """Where limits are kept; a version is added and never edited."""

    async def lock_book(self, uow: Any, tenant_id: UUID) -> datetime:
        """Raise the tenant's revision, one writer at a time; return the database's time after the wait."""
        ...

    async def versions_of(self, uow: Any, tenant_id: UUID, limit_id: UUID) -> Sequence[StoredLimit]: ...

    async def calendar_of(self, uow: Any, tenant_id: UUID, operation: str | None, currency: str) -> str:
        """Return the zone of the rails of an operation's routes where they agree, else the tenant's."""
        ...

    async def insert_version(self, uow: Any, tenant_id: UUID, limit: StoredLimit) -> None: ...

    async def read_usage(self, uow: Any, keys: Sequence[UsageKey]) -> dict[UsageKey, UsageMove]: ...

    async def set_tier(self, uow: Any, tenant_id: UUID, wallet_id: UUID, tier: str) -> bool: ...

    async def wallet_currency(self, uow: Any, tenant_id: UUID, wallet_id: UUID) -> str | None: ...


def limit_id_of(tenant_id: UUID, name: str) -> UUID:
    """Return the id of the tenant's limit of this name, whether it exists or not."""
    return derive_id(tenant_id, "limit", name)


async def set_limit(
    uow: Any, limits: Limits, tenant_id: UUID, actor: str, request: LimitRequest
) -> tuple[LimitView, bool]:
    """Keep a limit as the next version of its name; return it and whether it is new. A repeat changes nothing.

    Raises Refusal: unknown_currency, limit_shape_fixed.
    """
    if request.currency is not None:
        require_currency(request.currency)
    limit_id = limit_id_of(tenant_id, request.name)
    now = await limits.lock_book(uow, tenant_id)
    versions = await limits.versions_of(uow, tenant_id, limit_id)
    if versions:
        newest = versions[0]
        if newest.enabled and newest.request == request:
            return view_of(newest), False
        for name in _SHAPE:
            if getattr(newest.request, name) != getattr(request, name):
                text = f"{request.name} is set with another {name}: disable it and set one of another name"
                raise Refusal("limit_shape_fixed", text, field=name)
    zone = await _calendar(uow, limits, tenant_id, request, versions)
    made = StoredLimit(limit_id, len(versions) + 1, request.name, True, request, zone, now, actor)
    await limits.insert_version(uow, tenant_id, made)
    return view_of(made), True


async def disable_limit(uow: Any, limits: Limits, tenant_id: UUID, actor: str, limit_id: UUID) -> LimitView:
    """Add a version that limits nothing; one that is disabled stays as it is. Raises Refusal `not_found`."""
    now = await limits.lock_book(uow, tenant_id)
    versions = await limits.versions_of(uow, tenant_id, limit_id)
    if not versions:
        raise Refusal("not_found", "there is no such limit")
    newest = versions[0]
    if not newest.enabled:
        return view_of(newest)
    made = StoredLimit(limit_id, newest.version + 1, newest.name, False, newest.request, newest.timezone, now, actor)
    await limits.insert_version(uow, tenant_id, made)
    return view_of(made)


async def list_limits(uow: Any, limits: Limits, tenant_id: UUID) -> list[LimitView]:
    """Return the newest version of every limit by name, disabled ones too."""
    return [view_of(each) for each in sorted(await limits.latest_limits(uow, tenant_id), key=lambda each: each.name)]


async def list_versions(uow: Any, limits: Limits, tenant_id: UUID, limit_id: UUID) -> list[LimitView]:
    """Return every version of a limit, the newest first. Raises Refusal `not_found`."""
    found = await limits.versions_of(uow, tenant_id, limit_id)
    if not found:
        raise Refusal("not_found", "there is no such limit")
    return [view_of(each) for each in found]


async def wallet_limits(uow: Any, limits: Limits, tenant_id: UUID, wallet_id: UUID, at: datetime) -> WalletLimits:
    """Return every limit that counts payments of the wallet at a moment, with what is left. Raises `not_found`."""
    currency = await limits.wallet_currency(uow, tenant_id, wallet_id)
    if currency is None:
        raise Refusal("not_found", "there is no such wallet")
    book = await LimitBook(limits).book_of(uow, tenant_id)
    payer = (await limits.payers_of(uow, [wallet_id]))[wallet_id]
    in_currency = [limit for limit in book.limits if limit.currency == currency]
    claims = sorted(claims_of(in_currency, tenant_id, payer, at), key=lambda one: one.limit.name)
    usage = await limits.read_usage(uow, [one.key for one in claims if one.key is not None])
    items = [
        _standing(
            one.limit,
            UsageMove() if one.key is None else usage.get(one.key, UsageMove()),
            None if one.key is None else renewal_of(one.limit.kind, one.key.period, one.limit.zone),
        )
        for one in claims
    ]
    return WalletLimits(wallet_id=wallet_id, tier=payer.tier, items=items)


async def set_tier(uow: Any, limits: Limits, tenant_id: UUID, wallet_id: UUID, tier: str) -> None:
    """Give a wallet its tier, for payments from now on. Raises Refusal `not_found`."""
    if not await limits.set_tier(uow, tenant_id, wallet_id, tier):
        raise Refusal("not_found", "there is no such wallet")


def view_of(limit: StoredLimit) -> LimitView:
    """Return the version as it is shown."""
    return LimitView(
        id=limit.id,
        version=limit.version,
        name=limit.name,
        enabled=limit.enabled,
        created_at=limit.created_at,
        created_by=limit.created_by,
        timezone=limit.timezone,
        limit=limit.request.model_dump(mode="json"),
    )


async def _calendar(
    uow: Any, limits: Limits, tenant_id: UUID, request: LimitRequest, versions: Sequence[StoredLimit]
) -> str | None:
    """Return where a new version's days begin: where it says, else where they did; decided with the first version.

    Never by the payment, nor by what routes say later: two periods would be open at once.
    """
    if request.kind is LimitKind.QUOTA or request.currency is None:
        return None
    if request.timezone is not None:
        return request.timezone
    if versions and versions[0].timezone is not None:
        return versions[0].timezone
    return await limits.calendar_of(uow, tenant_id, request.operation, request.currency)


def _standing(limit: Limit, usage: UsageMove, renews_at: datetime | None) -> WalletLimitView:
    counted = Counted(usage.held_minor + usage.used_minor, usage.held_count + usage.used_count)
    left_minor, left_count = left(limit, counted)
    return WalletLimitView(
        id=limit.id,
        version=limit.version,
        name=limit.name,
        kind=limit.kind,
        subject=limit.subject,
        operation=None if limit.operation is None else OperationType(limit.operation),
        max_amount_minor=limit.max_amount_minor,
        max_count=limit.max_count,
        used_minor=usage.used_minor,
        held_minor=usage.held_minor,
        left_minor=left_minor,
        used_count=usage.used_count,
        held_count=usage.held_count,
        left_count=left_count,
        renews_at=renews_at,
        timezone=str(limit.zone),
    )
