"""Puts the commands together and turns every error into one line."""

import os
import sys

import typer
from typer.exceptions import TyperException

from fleet.cli import (
    audit,
    collections,
    completion,
    console,
    dlq,
    events,
    fees,
    intents,
    keys,
    ledger,
    limits,
    liquidity,
    mandates,
    projections,
    purge,
    qr,
    quotes,
    rails,
    rates,
    recon,
    recover,
    redrives,
    reviews,
    routes,
    sbp,
    simulate,
    streams,
    suspense,
    tenants,
    wallets,
    webhooks,
)
from fleet.cli.output import CommandError, ExitCode

app = typer.Typer(
    name="fleet",
    help="Payments, wallets, streams, dead letters and the ledger of psp-fleet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(intents.app, name="intents")
app.add_typer(reviews.app, name="reviews")
app.add_typer(events.app, name="events")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(suspense.app, name="suspense")
app.add_typer(collections.app, name="collections")
app.add_typer(wallets.app, name="wallets")
app.add_typer(rails.app, name="rails")
app.add_typer(streams.app, name="streams")
app.add_typer(dlq.app, name="dlq")
app.add_typer(redrives.app, name="redrives")
app.add_typer(recon.app, name="recon")
app.add_typer(audit.app, name="audit")
app.add_typer(console.app, name="console")
app.add_typer(ledger.app, name="ledger")
app.add_typer(projections.app, name="projections")
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.add_typer(routes.app, name="routes")
app.add_typer(fees.app, name="fees")
app.add_typer(limits.app, name="limits")
app.add_typer(rates.app, name="rates")
app.add_typer(quotes.app, name="quotes")
app.add_typer(mandates.app, name="mandates")
app.add_typer(liquidity.app, name="liquidity")
app.add_typer(qr.app, name="qr")
app.add_typer(sbp.app, name="sbp")
app.add_typer(simulate.app, name="simulate")
app.command("exposure")(liquidity.exposure_)
app.add_typer(recover.app, name="recover")
app.command("purge")(purge.purge)
app.command("completion")(completion.completion)


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
    message = " ".join(error.format_message().split())
    # A group without a command has printed its help, and says nothing more.
    return f"fleet: usage: {message} (fleet --help shows how)\n" if message else ""
