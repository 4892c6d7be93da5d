"""`fleet completion`: what a shell needs to complete commands and options."""

from enum import StrEnum
from typing import Annotated

import typer
from typer import completion as typers


class Shell(StrEnum):
    """The shells that are served."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell that will read it.")]) -> None:
    """Print the shell's completion of fleet: source it, or put it where the shell looks."""
    # Typer offers it there without declaring it.
    script = typers.get_completion_script(prog_name="fleet", complete_var="_FLEET_COMPLETE", shell=shell.value)  # type: ignore[attr-defined]
    typer.echo(script)
