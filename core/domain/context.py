"""Who acts, for which tenant, in which trace: every use case takes one."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Context:
    """The tenant whose rows may be seen, the actor that the audit names, and the W3C traceparent.

    `tenant_id` is None only for background work that serves every tenant under the worker role.
    """

    tenant_id: UUID | None
    actor: str
    traceparent: str | None = None
