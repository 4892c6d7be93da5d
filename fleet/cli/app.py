"""Puts the commands together and turns every error into one line."""

import os
import sys
from typing import Any, Final

import typer
from pydantic import ValidationError
from typer.core import TyperGroup
from typer.exceptions import TyperException

from fleet.cli.later import Later
from fleet.cli.output import CommandError, ExitCode
from schemas.faults import first_fault

# In the order in which they are listed: a name, its place (see Later), and what the help of its own begins with.
COMMANDS: Final = (
    ("intents", "intents", "Payments."),
    ("reviews", "reviews", "Payments that wait, held, for a decision."),
    ("events", "events", "What happened to payments."),
    ("webhooks", "webhooks", "Webhooks: where events are sent, and what came of it."),
    ("suspense", "suspense", "Money in suspense: the work list, and decisions about it."),
    ("collections", "collections", "Money in: what waits for its payer, and tolerances."),
    ("wallets", "wallets", "Wallets and their balances."),
    ("rails", "rails", "Rails: what is registered, pause, resume, events."),
    ("streams", "streams", "Redis Streams between the core and the adapters."),
    ("dlq", "dlq", "Dead letters."),
    ("redrives", "redrives", "Redrives, discards and settlements by hand."),
    ("alerts", "alerts", "Alerts about payments: listed, and closed with a reason."),
    ("recon", "recon", "Reconciliation and its breaks."),
    ("audit", "audit", "The audit journal."),
    ("console", "console", "The console: who may sign in."),
    ("ledger", "ledger", "The books."),
    ("projections", "projections", "What is stored beside the history: compared with it, and made from it."),
    ("keys", "keys", "Service keys: create, list, rotate, revoke."),
    ("tenants", "tenants", "Tenants: unaware of each other."),
    ("routes", "routes", "Which rail carries a payment."),
    ("fees", "fees", "What payments cost."),
    ("limits", "limits", "What may be paid."),
    ("rates", "rates", "What currencies are worth."),
    ("quotes", "quotes", "What an exchange costs."),
    ("mandates", "mandates", "Mandates: under which money is pulled by direct debit."),
    ("liquidity", "liquidity", "What exchanges are paid from."),
    ("qr", "qr", "Thai payment codes: PromptPay and bill QR, bank slips, bill barcodes."),
    ("sbp", "sbp", "SBP: verify QR links."),
    ("simulate", "simulate", "Simulated providers: script faults, play the payer, read their books."),
    (
        "exposure",
        "liquidity:exposure_",
        "Show what liquidity there is, what was bought, sold and earned, and at which average rate.",
    ),
    (
        "recover",
        "recover",
        "Raise the ledger epoch: every open job counts as possibly sent, and nothing is voided on old proof.",
    ),
    (
        "purge",
        "purge:purge",
        "Lose rows that are older than they must be kept, in batches: it may be stopped and run again at any time.",
    ),
    (
        "completion",
        "completion:completion",
        "Print the shell's completion of fleet: source it, or put it where the shell looks.",
    ),
)


class _Fleet(TyperGroup):
    """The command itself."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, place, says in COMMANDS:
            self.add_command(Later(name, says, place))


app = typer.Typer(
    name="fleet",
    cls=_Fleet,
    help="Payments, wallets, streams, dead letters and the ledger of psp-fleet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _fleet() -> None:
    # Its help is the app's.
    pass


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code (see the package's docstring)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        # What the terminal sends in another encoding comes as lone surrogates, which nothing behind us takes.
        "".join(arguments).encode()
        outcome = app(args=arguments, prog_name="fleet", standalone_mode=False)
        sys.stdout.flush()
    except CommandError as error:
        sys.stderr.write(error.line() + "\n")
        return int(error.exit_code)
    except TyperException as error:
        sys.stderr.write(_usage(error))
        return int(ExitCode.WRONG_INPUT)
    except UnicodeEncodeError:
        sys.stderr.write("fleet: usage: an argument is not UTF-8: set the terminal's encoding\n")
        return int(ExitCode.WRONG_INPUT)
    except typer.Abort:
        return int(ExitCode.INTERRUPTED)
    except (BrokenPipeError, SystemExit):
        # The reader, such as `head`, has seen enough; nothing may be flushed into its pipe at exit. Within a command
        # typer answers the broken pipe with SystemExit(1), which would read as a check that failed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.DONE)
    except Exception as error:
        if os.environ.get("FLEET_TRACEBACK"):
            raise
        text = " ".join(str(error).split())[:200]
        sys.stderr.write(
            f"fleet: unexpected: {type(error).__name__}: {text}; report it with what FLEET_TRACEBACK=1 shows\n"
        )
        return int(ExitCode.OUR_FAULT)
    return outcome if isinstance(outcome, int) else 0


def _usage(error: TyperException) -> str:
    if isinstance(error.__cause__, ValidationError):
        error.message = first_fault(error.__cause__).words
    message = " ".join(error.format_message().split()).replace(": Value error, ", ": ")
    # A group without a command has printed its help, and says nothing more.
    return f"fleet: usage: {message} (fleet --help shows how)\n" if message else ""
