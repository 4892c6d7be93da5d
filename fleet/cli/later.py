"""Commands that are known by name and by what they do, and whose module is imported when they are called.

Whoever types `fleet wallets show` waits for what wallets need, not for what all thirty groups need together.
"""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_group


class Later(TyperCommand):
    """Stands for a command or a group of `fleet.cli` in lists and in completion, and becomes it when it is called."""

    def __init__(self, name: str, says: str, place: str) -> None:
        """`place` is the module in fleet.cli, and after a colon the function, where it is not the group `app`."""
        super().__init__(name=name, help=says)
        self._place = place

    def load(self) -> TyperCommand:
        """Import the module and return the command itself."""
        module, _, function = self._place.partition(":")
        found = getattr(import_module(f"fleet.cli.{module}"), function or "app")
        holder = typer.Typer()
        # Alone, a command would swallow its own name: a second one keeps the holder a group.
        holder.callback()(lambda: None)
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=self.name)
        else:
            holder.command(self.name)(found)
        command: TyperCommand = get_group(holder).commands[str(self.name)]  # type: ignore[assignment]  # a group is none
        return command

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        """Parse as the command itself does: from here on it is the one that runs."""
        return self.load().make_context(*arguments, **named)
