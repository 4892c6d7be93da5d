"""What a rail saw without having been asked reaches the core: money by HTTP, verdicts by the results stream."""

import logging
from dataclasses import dataclass
from uuid import UUID

from adapters.runtime.core_client import CoreClient, CoreRefusedError, CoreUnavailableError
from schemas.announced_returns import AnnouncedReturns
from schemas.collections import ProviderPaymentAnswers, ProviderPaymentBatch
from schemas.envelope import Envelope
from schemas.rails import EvidenceItem
from schemas.results import RESULT_TYPE, Result
from schemas.streams import results_stream
from wire.client import StreamServers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CoreListener:
    """The core, for a rail that watches its provider."""

    core: CoreClient
    servers: StreamServers

    async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
        """Take facts about money that came in."""
        return await self.core.post_payments(batch)

    async def tell(self, result: Result) -> None:
        """Publish a verdict about a payment of ours. A repeat is the same fact. Raises RedisError."""
        envelope = Envelope(str(result.job_id), RESULT_TYPE, result.model_dump_json())
        await self.servers.of(result.rail).xadd(results_stream(result.rail), dict(envelope.to_fields().items()))

    async def keep_evidence(self, item: EvidenceItem) -> UUID | None:
        """Keep what shows a verdict; None where the core does not take it: the verdict does not wait for it."""
        try:
            await self.core.post_evidence([item])
        except (CoreUnavailableError, CoreRefusedError) as error:
            log.warning("evidence is not kept: %s", type(error).__name__)
            return None
        return item.id

    async def announce(self, told: AnnouncedReturns) -> None:
        """Tell of payments that are coming back."""
        await self.core.ask("/internal/v1/announced-returns", told.model_dump_json().encode())
