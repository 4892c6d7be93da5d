"""Runs the simulator as a process: `python -m adapters.sbp.simulator --port 9000 --db book.sqlite`."""

from adapters.sbp.simulator import registers
from adapters.sbp.simulator.app import Behaviour, build_app
from adapters.sbp.simulator.book import SCHEMA
from adapters.sbp.simulator.callbacks import Callbacks
from adapters.sbp.simulator.magic import MAGIC
from adapters.sbp.simulator.orders import Orders
from adapters.sbp.simulator.payouts import Payouts
from adapters.testkit.durable import DurableStore
from adapters.testkit.faults import FaultScripts, scripts_of
from adapters.testkit.serving import serve, simulator_arguments, simulator_secret
from wire.logs import log_json_lines


def main() -> None:
    """Serve until SIGTERM."""
    parser = simulator_arguments("sbp", __doc__)
    parser.add_argument("--check-lives-s", type=float, default=300)
    parser.add_argument("--fee-kopecks", type=int, default=0)
    chosen = parser.parse_args()
    log_json_lines("sbp-simulator")
    store, faults = DurableStore(chosen.db, SCHEMA + registers.SCHEMA), FaultScripts(chosen.seed, scripts_of(MAGIC))
    payouts = Payouts(
        store,
        faults,
        check_lives_s=chosen.check_lives_s,
        settle_after_s=chosen.settle_after_s,
        fee_minor=chosen.fee_kopecks,
    )
    behaviour = Behaviour(
        simulator_secret(),
        latency_s=chosen.latency_ms / 1000,
        timeout_delay_s=chosen.timeout_delay_s,
        callback_delay_s=chosen.callback_delay_s,
    )
    orders = Orders(store, faults, settle_after_s=chosen.settle_after_s)
    callbacks = Callbacks(chosen.callback_url, simulator_secret())
    serve(build_app(payouts, orders, callbacks, behaviour), chosen.host, chosen.port)


if __name__ == "__main__":
    main()
