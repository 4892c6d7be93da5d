"""Runs the simulator as a process: `python -m adapters.promptpay.simulator --port 9000 --db book.sqlite`."""

import argparse
from pathlib import Path

from adapters.promptpay.simulator.app import Behaviour, build_app
from adapters.promptpay.simulator.book import SCHEMA
from adapters.promptpay.simulator.magic import magic_scripts
from adapters.promptpay.simulator.qr import QR_SCHEMA
from adapters.promptpay.simulator.service import Ipps
from adapters.testkit.durable import DurableStore
from adapters.testkit.faults import FaultScripts
from adapters.testkit.serving import serve
from wire.logs import log_json_lines


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="promptpay-simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--db", type=Path, required=True, help="the durable book (SQLite)")
    parser.add_argument("--key-id", default="sandbox")
    parser.add_argument("--secret", default="sandbox-secret")
    parser.add_argument("--seed", type=int, default=0, help="of faults with a probability")
    parser.add_argument("--latency-ms", type=int, default=0)
    parser.add_argument("--timeout-delay-s", type=float, default=30, help="how long a timed-out answer is withheld")
    parser.add_argument("--settle-after-s", type=float, default=1.5, help="of slow transfers")
    parser.add_argument("--lookup-lives-s", type=float, default=300)
    parser.add_argument("--fee-satang", type=int, default=0)
    parser.add_argument("--callback-url", default="")
    parser.add_argument("--callback-delay-s", type=float, default=2)
    parser.add_argument("--callback-retry-s", type=float, default=12, help="between deliveries that nobody took")
    chosen = parser.parse_args()
    log_json_lines("promptpay-simulator")
    ipps = Ipps(
        DurableStore(chosen.db, SCHEMA + QR_SCHEMA),
        FaultScripts(chosen.seed, magic_scripts()),
        lookup_lives_s=chosen.lookup_lives_s,
        settle_after_s=chosen.settle_after_s,
        fee_minor=chosen.fee_satang,
    )
    behaviour = Behaviour(
        chosen.key_id,
        chosen.secret,
        latency_s=chosen.latency_ms / 1000,
        timeout_delay_s=chosen.timeout_delay_s,
        callback_url=chosen.callback_url,
        callback_delay_s=chosen.callback_delay_s,
        callback_retry_s=chosen.callback_retry_s,
    )
    serve(build_app(ipps, behaviour), chosen.host, chosen.port)


if __name__ == "__main__":
    main()
