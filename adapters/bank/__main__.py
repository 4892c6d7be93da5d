"""Runs the bank's adapter: `python -m adapters.bank`."""

from adapters.bank.adapter import BankRail
from adapters.bank.client import BankClient
from adapters.bank.kept import KeptMessages
from adapters.bank.settings import BankSettings
from adapters.bank.xml import MESSAGE_MAX_BYTES
from adapters.runtime.app import run
from adapters.runtime.core_client import CoreClient
from adapters.runtime.core_files import CoreFiles
from adapters.runtime.http import provider_client
from adapters.runtime.settings import RuntimeSettings


def make_rail(runtime: RuntimeSettings) -> BankRail:
    """Return the rail over its own connections to the bank, and to the core where its files are kept."""
    settings = BankSettings()
    http = provider_client(
        settings.base_url,
        call_total_s=runtime.call_total_s,
        connect_s=settings.connect_s,
        max_connections=settings.max_connections,
        # A message that is too long for us must be read, to be passed over by name: those behind it carry money.
        answer_max_bytes=4 * MESSAGE_MAX_BYTES,
    )
    core = CoreClient(
        runtime.core_internal_url, key_id=runtime.core_key_id, secret=runtime.core_key_secret.get_secret_value()
    )
    client = BankClient(http, settings.user, settings.password.get_secret_value())
    messages = KeptMessages(client, core, settings.provider_account, settings.environment)
    return BankRail(client, CoreFiles(core), settings, runtime.timing(), messages)


if __name__ == "__main__":
    run(make_rail)
