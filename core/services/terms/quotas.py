"""Quotas: how many objects a tenant may have at a time, exact however many are made at once."""

from typing import Any, Protocol
from uuid import UUID

from core.services.problems import Refusal
from core.services.terms.limits import LimitBook
from schemas.limits import LimitExceeded, QuotaObject


class ObjectCounter(Protocol):
    """Counts the objects of a tenant."""

    async def count_objects(self, uow: Any, tenant_id: UUID, what: QuotaObject, enough: int) -> int:
        """Return how many exist, `enough` at most; who counts waits for who counted before it to commit."""
        ...


class Quotas:
    """Checks what a transaction has just made; without a quota no statement is sent, but a small one a second."""

    def __init__(self, book: LimitBook, counter: ObjectCounter) -> None:
        self._book, self._counter = book, counter

    async def check(self, uow: Any, tenant_id: UUID, what: QuotaObject) -> None:
        """Refuse the object that the transaction has made where the tenant has too many now; it must roll back.

        Raises Refusal `limit_exceeded`, of the smallest quota.
        """
        book = await self._book.book_of(uow, tenant_id)
        quotas = [quota for quota in book.quotas if quota.request.object is what]
        if not quotas:
            return
        quota = min(quotas, key=lambda each: (each.request.max_count or 0, each.name))
        allowed = quota.request.max_count or 0
        if await self._counter.count_objects(uow, tenant_id, what, allowed + 1) > allowed:
            exceeded = LimitExceeded(limit_id=quota.id, limit=quota.name, remaining_count=0)
            raise Refusal(
                "limit_exceeded",
                f"quota {quota.name} allows {allowed} {what.lower().replace('_', ' ')}",
                limit=exceeded,
            )
