"""What a rail saw without having been asked reaches the core: money by HTTP, verdicts by the results stream."""

from dataclasses import dataclass

from adapters.runtime.core_client import CoreClient
from schemas.collections import ProviderPaymentAnswers, ProviderPaymentBatch
from schemas.envelope import Envelope
from schemas.results import RESULT_TYPE, Result
from schemas.streams import results_stream
from wire.client import StreamServers


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
