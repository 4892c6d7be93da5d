"""Runs the SBP adapter: `python -m adapters.sbp`."""

from adapters.runtime.app import run
from adapters.runtime.http import provider_client
from adapters.runtime.settings import RuntimeSettings
from adapters.sbp.adapter import SbpRail
from adapters.sbp.client import QpClient
from adapters.sbp.settings import SbpSettings


def make_rail(runtime: RuntimeSettings) -> SbpRail:
    """Return the rail over its own connections."""
    settings = SbpSettings()
    http = provider_client(
        settings.base_url,
        call_total_s=runtime.call_total_s,
        connect_s=settings.connect_s,
        max_connections=runtime.enough_for_calls("SBP_MAX_CONNECTIONS", settings.max_connections),
    )
    return SbpRail(QpClient(http, settings.secret.get_secret_value()), settings, runtime.timing())


if __name__ == "__main__":
    run(make_rail)
