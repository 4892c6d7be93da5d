"""The rate limit of a provider, shared by every instance of its adapter: a token bucket on the server."""

from dataclasses import dataclass

from redis.asyncio import Redis

from wire.functions import take_tokens

_LONGEST_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class RateSettings:
    """`per_s` calls a second in the long run, `burst` at once; 0 a second is no limit."""

    per_s: float = 0.0
    burst: int = 1

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.per_s > 0


class RateBucket:
    """One lane's way to the rail's bucket. `leave` tokens stay for the other lane."""

    def __init__(self, client: Redis, rail: str, settings: RateSettings, *, leave: int) -> None:
        self._client, self._rail, self._own = client, rail, settings
        self._leave = min(leave, settings.burst - 1)

    async def take(self, wanted: int) -> tuple[int, float]:
        """Return how many calls may be made of those wanted, and in how many seconds the next one may be.

        The server's clock counts, so instances need not agree on the time. Raises redis-py's errors and
        ServerUnpreparedError: then nothing may be called.
        """
        own = self._own
        taken, wait_s = await take_tokens(
            self._client, self._rail, per_s=own.per_s, burst=own.burst, leave=self._leave, wanted=wanted
        )
        return taken, min(wait_s, _LONGEST_WAIT_S)
