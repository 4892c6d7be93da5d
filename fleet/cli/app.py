"""Puts the commands together and turns every error into one line."""

import sys

import click
import typer

from fleet.cli import dlq, intents, keys, ledger, qr, streams, wallets
from fleet.cli.output import CommandError

app = typer.Typer(
    name="fleet",
    help="Payments, wallets, streams, dead letters and the ledger of psp-fleet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(intents.app, name="intents")
app.add_typer(wallets.app, name="wallets")
app.add_typer(streams.app, name="streams")
app.add_typer(dlq.app, name="dlq")
app.add_typer(ledger.app, name="ledger")
app.add_typer(keys.app, name="keys")
app.add_typer(qr.app, name="qr")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code (see the package's docstring)."""
    try:
        outcome = app(args=arguments, standalone_mode=False)
    except CommandError as error:
        sys.stderr.write(error.line() + "\n")
        return int(error.exit_code)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Abort:
        return 130
    return outcome if isinstance(outcome, int) else 0
