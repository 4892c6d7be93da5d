"""`./dev demo`: pay a file of payments, by every rail, through the whole system and prove what became of the money."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import NoReturn

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from core.store.database import AWAY, Database
from fleet.client import FleetClient, FleetError
from fleet.demo.example import payments
from fleet.demo.payments_file import FileRefusedError, PaymentLine, RefusedLine, read_payments
from fleet.demo.progress import lines_of_progress
from fleet.demo.report import as_object, print_report
from fleet.demo.runner import Run, WaitedTooLongError, run_payments
from fleet.proof import Proof, prove
from fleet.stack.interrupt import interruptible
from fleet.stack.rails import EVERY_RAIL
from fleet.stack.stack import Stack, StackError, StackPlan, running
from schemas.money import AmountError, currency_of, to_minor

SHIPPED = Path(__file__).parents[2] / "examples" / "payments.csv"
_WAIT_S = 90


def main() -> int:
    """Run the demo.

    Exit code 0: the proof holds; 1: it does not; 2: wrong input; 3: the stack failed; 130: interrupted.
    """
    chosen = _arguments()
    console, run = Console(stderr=chosen.json), Run()
    try:
        lines, total = _lines(chosen)
        with _home(chosen.data) as home:
            proof = asyncio.run(
                _demo(StackPlan(home, rails=EVERY_RAIL), run, lines, total, chosen.opening_balance, console)
            )
    except FileRefusedError as error:
        return _fail(f"file_refused: {error}", 2)
    except (StackError, FleetError, WaitedTooLongError, OSError) as error:
        return _fail(f"stack_failed: {error}", 3)
    except AWAY as error:
        return _fail(f"server_unreachable: PostgreSQL went away: {error}", 3)
    except (asyncio.CancelledError, KeyboardInterrupt):
        return _fail(
            f"interrupted: {run.ended} of {len(run.accepted)} accepted payments had ended; {_go_on(chosen)}", 130
        )
    if chosen.json:
        sys.stdout.write(orjson.dumps(as_object(run, proof), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        print_report(console, run, proof)
    return 0 if proof.holds else 1


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"demo: {' '.join(text.split())}\n")
    return code


def _go_on(chosen: argparse.Namespace) -> str:
    if chosen.data is None:
        return "its data is removed: with --data DIR the same command goes on where it stopped"
    return "the same command goes on where it stopped, and pays nothing twice"


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SystemExit(_fail(f"usage: {message} (./dev demo --help shows how)", 2))


def _arguments() -> argparse.Namespace:
    parser = _OneLineParser(prog="./dev demo", description=__doc__)
    parser.add_argument("--file", type=Path, help="CSV or NDJSON; default: examples/payments.csv")
    parser.add_argument("--count", type=_positive, help="pay this many: the first of the file, or generated ones")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--data", type=Path, help="keep the data in this folder; default: a fresh one, removed after")
    parser.add_argument(
        "--opening-balance", type=_amount, default="1000000.00", help="of every wallet that the file names"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text[:24]!r} is not a whole number above zero")
    return int(text)


def _amount(text: str) -> str:
    try:
        to_minor(text, currency_of("THB"))
    except AmountError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _lines(chosen: argparse.Namespace) -> tuple[Iterable[PaymentLine | RefusedLine], int | None]:
    if chosen.file is None and chosen.count is not None:
        return islice(payments(), chosen.count), chosen.count
    path = chosen.file or SHIPPED
    lines = read_payments(path)
    first = list(islice(lines, 1))  # refuses a bad file before anything is started
    if not first:
        raise FileRefusedError(f"{path}: no payments in it")
    # Read once: the file may be a pipe.
    return islice(chain(first, lines), chosen.count), chosen.count


def _home(data: Path | None) -> AbstractContextManager[Path]:
    if data is not None:
        return nullcontext(data)
    temporary: AbstractContextManager[str] = tempfile.TemporaryDirectory(prefix="psp-fleet-demo-")
    return _AsPath(temporary)


class _AsPath(AbstractContextManager[Path]):
    def __init__(self, inner: AbstractContextManager[str]) -> None:
        self._inner = inner

    def __enter__(self) -> Path:
        return Path(self._inner.__enter__())

    def __exit__(self, *error: object) -> None:
        self._inner.__exit__(None, None, None)


async def _demo(
    plan: StackPlan,
    run: Run,
    lines: Iterable[PaymentLine | RefusedLine],
    total: int | None,
    balance: str,
    console: Console,
) -> Proof:
    doing = "starting PostgreSQL, Valkey, the core, the adapters and their providers …"
    with interruptible(), console.status(doing) as busy:
        async with (
            lines_of_progress(console, lambda: _note(run) if run.accepted else doing),
            running(plan) as stack,
        ):
            busy.stop()
            return await stack.unless_a_server_ends(_pay(stack, run, lines, total, balance, console))


def _note(run: Run) -> str:
    ended = f"{run.ended} of {len(run.accepted)} accepted payments have ended"
    return f"{ended}: {run.ends['SETTLED']} settled, {sum(run.failed.values())} failed"


async def _pay(
    stack: Stack,
    run: Run,
    lines: Iterable[PaymentLine | RefusedLine],
    total: int | None,
    balance: str,
    console: Console,
) -> Proof:
    info = stack.info
    database = await Database.connect(info.database_url, max_size=2, application_name="demo")
    bar = Progress(
        TextColumn("paying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn(),
        console=console,
    )  # fmt: skip
    try:
        async with FleetClient(info.public_url, info.key_id, info.key_secret) as client:
            with bar:
                task = bar.add_task("paying", total=total, note="")

                def progress(run: Run) -> None:
                    note = f"{run.ends['SETTLED']} settled, {sum(run.failed.values())} failed"
                    bar.update(task, completed=run.ended, total=total or len(run.accepted), note=note)

                await run_payments(
                    client,
                    database,
                    lines,
                    opening_balance=balance,
                    wait_s=_WAIT_S,
                    progress=progress,
                    pay_in=stack.pay_in,
                    run=run,
                )
        return await prove(database, await stack.booked(), await stack.received())
    finally:
        await database.close()


if __name__ == "__main__":
    sys.exit(main())
