"""Runs the simulator as a process: `python -m adapters.promptpay.simulator --port 9000 --db book.sqlite`."""

from adapters.promptpay.simulator.app import Behaviour, build_app
from adapters.promptpay.simulator.book import SCHEMA
from adapters.promptpay.simulator.magic import MAGIC
from adapters.promptpay.simulator.qr import QR_SCHEMA
from adapters.promptpay.simulator.service import Ipps
from adapters.testkit.durable import DurableStore
from adapters.testkit.faults import FaultScripts, scripts_of
from adapters.testkit.serving import serve, simulator_arguments, simulator_secret
from wire.logs import log_json_lines


def main() -> None:
    """Serve until SIGTERM."""
    parser = simulator_arguments("promptpay", __doc__)
    parser.add_argument("--key-id", default="sandbox")
    parser.add_argument("--lookup-lives-s", type=float, default=300)
    parser.add_argument("--fee-satang", type=int, default=0)
    parser.add_argument("--callback-retry-s", type=float, default=12, help="between deliveries that nobody took")
    chosen = parser.parse_args()
    log_json_lines("promptpay-simulator")
    ipps = Ipps(
        DurableStore(chosen.db, SCHEMA + QR_SCHEMA),
        FaultScripts(chosen.seed, scripts_of(MAGIC)),
        lookup_lives_s=chosen.lookup_lives_s,
        settle_after_s=chosen.settle_after_s,
        fee_minor=chosen.fee_satang,
    )
    behaviour = Behaviour(
        chosen.key_id,
        simulator_secret(),
        latency_s=chosen.latency_ms / 1000,
        timeout_delay_s=chosen.timeout_delay_s,
        callback_url=chosen.callback_url,
        callback_delay_s=chosen.callback_delay_s,
        callback_retry_s=chosen.callback_retry_s,
    )
    serve(build_app(ipps, behaviour), chosen.host, chosen.port)


if __name__ == "__main__":
    main()
