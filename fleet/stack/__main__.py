"""`./dev up`: the whole system until Ctrl-C."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from fleet.stack.interrupt import interruptible
from fleet.stack.profile import SCALED, STANDARD
from fleet.stack.rails import EVERY_RAIL, rail_of
from fleet.stack.stack import REDIS_KINDS, Stack, StackError, StackPlan, running

_DEFAULT_HOME = Path(".fleet/up")


async def _up(plan: StackPlan) -> None:
    with interruptible():
        _say("starting PostgreSQL, Valkey, the core, the adapters and their providers …")
        async with running(plan) as stack:
            # Not before it runs: one that cannot start takes nothing from another that runs.
            with _announced(stack.home):
                _show(stack)
                try:
                    await stack.until_a_server_ends()
                finally:
                    _say("draining …")


def _show(stack: Stack) -> None:
    info = stack.info
    _say(f"API           {info.public_url}  (OpenAPI: {info.public_url}/openapi.json)")
    _say(f"console       {info.console_url}  (admin, {info.console_password or 'whose password you changed'})")
    _say(f"internal API  {info.internal_url}")
    for name, url in info.metrics.items():
        _say(f"metrics       {url}  ({name})")
    for name, pid in stack.supervisor.pids().items():
        _say(f"process       {pid:<8}({name})")
    _say(f"credentials   {stack.home / 'stack.json'}  (the fleet command finds it)")
    _say(f"logs          {stack.home / 'logs'}")
    _say("Ctrl-C stops everything.")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SystemExit(_fail(f"usage: {message} (./dev up --help shows how)", 2))


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"up: {' '.join(text.split())}\n")
    return code


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text[:24]!r} is no port: 1 to 65535, or 0 for a free one")
    return int(text)


def _written_rail(text: str) -> str:
    try:
        rail_of(text)
    except LookupError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def main() -> int:
    """Run until told to stop.

    Exit code 0: told to stop; 2: wrong usage; 3: the stack did not come up, or a server of it ended by itself.
    """
    parser = _OneLineParser(prog="./dev up", description=__doc__)
    parser.add_argument("--data", type=Path, help="keep data in this folder between runs; default: a fresh one")
    parser.add_argument("--port", type=_port, default=8080, help="of the public API; 0 takes a free one")
    parser.add_argument("--console-port", type=_port, default=8082, help="of the console; 0 takes a free one")
    parser.add_argument("--timing", choices=("scaled", "standard"), default="scaled", help="see docs/protocol.md, 4")
    parser.add_argument(
        "--redis", choices=REDIS_KINDS, default="single", help="one server, a cluster of six, or two under Sentinels"
    )
    parser.add_argument(
        "--rail", type=_written_rail, action="append", default=[], help="also run the rail of this folder of adapters/"
    )
    chosen = parser.parse_args()
    rails = {**EVERY_RAIL, **dict.fromkeys(chosen.rail, 1)}
    profile = SCALED if chosen.timing == "scaled" else STANDARD
    try:
        with tempfile.TemporaryDirectory(prefix="psp-fleet-") as fresh:
            home = chosen.data or Path(fresh)
            asyncio.run(_up(StackPlan(home, profile, rails, chosen.port, chosen.console_port, redis=chosen.redis)))
    except (StackError, OSError) as error:
        return _fail(f"stack_failed: {error}", 3)
    except (asyncio.CancelledError, KeyboardInterrupt):
        _say(f"stopped; the data is kept in {chosen.data}" if chosen.data else "stopped")
    return 0


@contextmanager
def _announced(home: Path) -> Iterator[None]:
    """Let the `fleet` command find the running stack from this folder, for as long as it runs."""
    _DEFAULT_HOME.mkdir(parents=True, exist_ok=True)
    pointer, target = _DEFAULT_HOME / "stack.json", home.resolve() / "stack.json"
    pointer.unlink(missing_ok=True)
    pointer.symlink_to(target)
    try:
        yield
    finally:
        # A stack that was started here later stays announced.
        if pointer.is_symlink() and pointer.readlink() == target:
            pointer.unlink()


if __name__ == "__main__":
    sys.exit(main())
