"""Runs the PromptPay adapter: `python -m adapters.promptpay`."""

from adapters.promptpay.adapter import PromptPayRail
from adapters.promptpay.client import IppsClient
from adapters.promptpay.settings import PromptPaySettings
from adapters.runtime.app import run
from adapters.runtime.http import provider_client
from adapters.runtime.settings import RuntimeSettings


def make_rail(runtime: RuntimeSettings) -> PromptPayRail:
    """Return the rail over its own connections."""
    settings = PromptPaySettings()
    http = provider_client(
        settings.base_url,
        call_total_s=runtime.call_total_s,
        connect_s=settings.connect_s,
        max_connections=runtime.enough_for_calls("PROMPTPAY_MAX_CONNECTIONS", settings.max_connections),
    )
    return PromptPayRail(
        IppsClient(http, settings.key_id, settings.secret.get_secret_value()), settings, runtime.timing()
    )


if __name__ == "__main__":
    run(make_rail)
