"""A new rail's folder: a complete adapter for an example provider, its simulator, its certificate and its page.

What is written runs and passes `./dev check` and the conformance suite as it is; docs/adding-a-rail.md says in which
order the example is replaced by the provider.
"""

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

_SUFFIX: Final = ".tmpl"
_FROM: Final = re.compile(r"^from (\S+) import ")


class FolderExistsError(Exception):
    """Something of that name is there already; nothing was written."""


def write_rail(root: Path, name: str) -> list[Path]:
    """Write the files of rail `name` into the work tree at `root`; return them, relative to it.

    Raises FolderExistsError before anything is written.
    """
    texts = {
        Path(_named(place, name)): _sorted_imports(_named(template.read_text(encoding="utf-8"), name))
        for place, template in _templates(files("fleet.scaffold") / "rail", "")
    }
    taken = [path for path in texts if (root / path).exists()]
    if taken:
        raise FolderExistsError(", ".join(str(path) for path in sorted(taken)))
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return sorted(texts)


def _templates(folder: Traversable, place: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _templates(each, f"{place}{each.name}/")
        elif each.name.endswith(_SUFFIX):
            found.append((place + each.name.removesuffix(_SUFFIX), each))
    return found


def _named(text: str, name: str) -> str:
    title = "".join(part.capitalize() for part in name.split("_"))
    return text.replace("@rail@", name).replace("@Rail@", title).replace("@RAIL@", name.upper())


def _sorted_imports(text: str) -> str:
    """Sort each run of imports by module: where the new name stands among the others depends on it."""
    lines, run, sorted_lines = text.split("\n"), list[str](), list[str]()
    for line in lines:
        if _FROM.match(line):
            run.append(line)
            continue
        sorted_lines += sorted(run, key=_module)
        run = []
        sorted_lines.append(line)
    return "\n".join([*sorted_lines, *run])


def _module(line: str) -> str:
    return line.split(" ")[1]
