"""What is written below the fields of a class. Python keeps no such docstrings, so they are read from its source."""

import ast
import inspect
import sys
from functools import cache


def attribute_docstrings(model: type) -> dict[str, str]:
    """Return the docstrings below the annotated attributes of a class and of what it inherits from, by name.

    A class that repeats an attribute describes it anew, by its own docstring or by none. A class whose source is not
    at hand has none.
    """
    described: dict[str, str] = {}
    for part in reversed(model.__mro__):
        module = sys.modules.get(part.__module__)
        if module is None or part.__module__ == "builtins" or part.__module__.startswith("pydantic"):
            continue
        own = _classes(part.__module__).get(part.__qualname__, {})
        for name, text in own.items():
            described.pop(name, None)
            if text:
                described[name] = text
    return described


@cache
def _classes(module: str) -> dict[str, dict[str, str]]:
    """Return the docstrings of every class of a module by attribute, empty where there is none; by qualified name."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):
        return {}
    found: dict[str, dict[str, str]] = {}
    _collect(tree, "", found)
    return found


def _collect(scope: ast.Module | ast.ClassDef | ast.FunctionDef, prefix: str, into: dict[str, dict[str, str]]) -> None:
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.ClassDef):
            into[prefix + node.name] = _attributes(node)
            _collect(node, f"{prefix}{node.name}.", into)
        elif isinstance(node, ast.FunctionDef):
            _collect(node, f"{prefix}{node.name}.<locals>.", into)


def _attributes(node: ast.ClassDef) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            says = following.value if isinstance(following, ast.Expr) else None
            text = says.value if isinstance(says, ast.Constant) and isinstance(says.value, str) else ""
            attributes[statement.target.id] = inspect.cleandoc(text)
    return attributes
