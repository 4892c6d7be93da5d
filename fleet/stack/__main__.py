"""`./dev up`: the whole system until Ctrl-C."""

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from fleet.stack.profile import SCALED, STANDARD
from fleet.stack.stack import StackError, StackPlan, running

_DEFAULT_HOME = Path(".fleet/up")


async def _up(plan: StackPlan) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    sys.stdout.write("starting PostgreSQL, Valkey, the core, the adapters and the provider simulator …\n")
    async with running(plan) as stack:
        info = stack.info
        sys.stdout.write(
            f"API           {info.public_url}  (OpenAPI: {info.public_url}/docs)\n"
            f"internal API  {info.internal_url}\n"
            f"credentials   {stack.home / 'stack.json'}  (the fleet command finds it)\n"
            f"logs          {stack.home / 'logs'}\n"
            "Ctrl-C stops everything.\n"
        )
        sys.stdout.flush()
        await stop.wait()
        sys.stdout.write("draining …\n")


def main() -> int:
    """Run until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="./dev up", description=__doc__)
    parser.add_argument("--data", type=Path, help="keep data in this folder between runs; default: a fresh one")
    parser.add_argument("--port", type=int, default=8080, help="of the public API; 0 takes a free one")
    parser.add_argument("--timing", choices=("scaled", "standard"), default="scaled", help="see docs/protocol.md, 4")
    chosen = parser.parse_args()
    profile = SCALED if chosen.timing == "scaled" else STANDARD
    try:
        with tempfile.TemporaryDirectory(prefix="psp-fleet-") as fresh:
            home = chosen.data or Path(fresh)
            _announce(home)
            asyncio.run(_up(StackPlan(home, profile, public_port=chosen.port)))
    except StackError as error:
        sys.stderr.write(f"up: {error}\n")
        return 1
    return 0


def _announce(home: Path) -> None:
    """Let the `fleet` command find the running stack from this folder."""
    _DEFAULT_HOME.mkdir(parents=True, exist_ok=True)
    pointer = _DEFAULT_HOME / "stack.json"
    pointer.unlink(missing_ok=True)
    pointer.symlink_to(home.resolve() / "stack.json")


if __name__ == "__main__":
    sys.exit(main())
