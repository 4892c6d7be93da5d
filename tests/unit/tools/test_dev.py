"""Which Python ./dev builds its environment with."""

import os
import sys
import sysconfig
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

_DEV = str(Path(__file__).parents[3] / "dev")
_NAME = "python{}.{}".format(*sys.version_info)


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The program as a module, on a machine whose own programs lie in a directory that is empty yet."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = _loaded()
    monkeypatch.setattr(module, "SYSTEM", tmp_path)
    return module


def _loaded() -> ModuleType:
    spec = spec_from_loader("dev", SourceFileLoader("dev", _DEV))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _built_with(monkeypatch: pytest.MonkeyPatch, arguments: str) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", {"CONFIG_ARGS": arguments}.get)


def _installed(tmp_path: Path, does: str, name: str = _NAME) -> Path:
    python = tmp_path / name
    python.write_text(f"#!/bin/sh\n{does}\n")
    python.chmod(0o755)
    return python


def test_an_old_python_hands_over_to_a_newer_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "version_info", (3, 9, 6))
    monkeypatch.setattr(sys, "argv", ["./dev", "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))

    def become(program: str, arguments: list[str]) -> None:
        raise SystemExit(" ".join([program, *arguments]))

    monkeypatch.setattr(os, "execv", become)
    with pytest.raises(SystemExit, match=r"needs Python 3\.11"):
        _loaded()
    _installed(tmp_path, "exit 127", "python3.11")
    newer = str(_installed(tmp_path, "exit 0", "python3.12"))
    with pytest.raises(SystemExit) as handed_over:
        _loaded()
    assert handed_over.value.code == f"{newer} {newer} ./dev demo"


def test_a_python_without_profile_guided_optimization_gives_way_to_the_systems_of_its_version(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _built_with(monkeypatch, "--enable-shared")
    assert dev.quickest_python() == sys.executable, "the system has none"
    system = _installed(tmp_path, "exit 0")
    assert dev.quickest_python() == str(system)


def test_a_system_without_venv_is_passed_over(dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _built_with(monkeypatch, "")
    _installed(tmp_path, "exit 1")
    assert dev.quickest_python() == sys.executable


def test_an_optimized_python_is_kept(dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _built_with(monkeypatch, "'--enable-optimizations' '--with-lto'")
    _installed(tmp_path, "exit 0")
    assert dev.quickest_python() == sys.executable
