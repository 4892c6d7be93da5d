"""What people on call do to money is shown first, and done when it is said again with --yes."""

from collections.abc import Mapping
from typing import Annotated

import typer

from fleet.cli.output import print_fields, print_json

Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this only what would happen is shown.")]


def show_dry_run(would: str, about: Mapping[str, object], as_json: bool) -> None:
    """Print what would be done, and what it would be done to; nothing is asked of the core but what was read."""
    if as_json:
        print_json({"dry_run": True, "would": would, **about})
        return
    print_fields(would, dict(about))
    typer.echo("nothing was changed: add --yes to do it")
