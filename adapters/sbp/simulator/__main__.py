"""Runs the simulator as a process: `python -m adapters.sbp.simulator --port 9000 --db book.sqlite`."""

import argparse
from pathlib import Path

from adapters.sbp.simulator import registers
from adapters.sbp.simulator.app import Behaviour, build_app
from adapters.sbp.simulator.book import SCHEMA
from adapters.sbp.simulator.callbacks import Callbacks
from adapters.sbp.simulator.magic import magic_scripts
from adapters.sbp.simulator.orders import Orders
from adapters.sbp.simulator.payouts import Payouts
from adapters.testkit.durable import DurableStore
from adapters.testkit.faults import FaultScripts
from adapters.testkit.serving import serve
from wire.logs import log_json_lines


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="sbp-simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--db", type=Path, required=True, help="the durable book (SQLite)")
    parser.add_argument("--secret", default="sandbox-secret", help="the client's key; callbacks are signed with it")
    parser.add_argument("--seed", type=int, default=0, help="of faults with a probability")
    parser.add_argument("--latency-ms", type=int, default=0)
    parser.add_argument("--timeout-delay-s", type=float, default=30, help="how long a timed-out answer is withheld")
    parser.add_argument("--settle-after-s", type=float, default=1.5, help="of slow payouts")
    parser.add_argument("--check-lives-s", type=float, default=300)
    parser.add_argument("--fee-kopecks", type=int, default=0)
    parser.add_argument("--callback-url", default="")
    parser.add_argument("--callback-delay-s", type=float, default=2)
    chosen = parser.parse_args()
    log_json_lines("sbp-simulator")
    store, faults = DurableStore(chosen.db, SCHEMA + registers.SCHEMA), FaultScripts(chosen.seed, magic_scripts())
    payouts = Payouts(
        store,
        faults,
        check_lives_s=chosen.check_lives_s,
        settle_after_s=chosen.settle_after_s,
        fee_minor=chosen.fee_kopecks,
    )
    behaviour = Behaviour(
        chosen.secret,
        latency_s=chosen.latency_ms / 1000,
        timeout_delay_s=chosen.timeout_delay_s,
        callback_delay_s=chosen.callback_delay_s,
    )
    orders = Orders(store, faults, settle_after_s=chosen.settle_after_s)
    callbacks = Callbacks(chosen.callback_url, chosen.secret)
    serve(build_app(payouts, orders, callbacks, behaviour), chosen.host, chosen.port)


if __name__ == "__main__":
    main()
