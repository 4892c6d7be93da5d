"""The locked requirements: each one hashed, none tied to an address, and together what the project declares."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[3]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


MACHINES = {
    f"{system} {machine}": {"sys_platform": system, "platform_machine": machine}
    for system in ("linux", "darwin")
    for machine in ("x86_64", "arm64")
}


def locked(name: str, machine: dict[str, str]) -> dict[str, Version]:
    """What is installed there by name, at which version."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    pins = [Requirement(line.rstrip(" \\")) for line in lines if "==" in line]
    taken = [pin for pin in pins if holds(pin, machine)]
    assert len({pin.name for pin in taken}) == len(taken)
    return {canonicalize_name(pin.name): Version(next(iter(pin.specifier)).version) for pin in taken}


def holds(requirement: Requirement, machine: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(machine)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_has_a_hash_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert re.search(r"://|file:|--(extra-)?index-url|--find-links|--trusted-host", text) is None
    requirements = text.replace("\\\n", " ").splitlines()
    assert requirements
    assert [line for line in requirements if "--hash=sha256:" not in line] == []


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("run.txt", ["noop", "promptpay", "sbp", "bank"]),
        ("dev.txt", ["noop", "promptpay", "sbp", "bank", "embedded", "dev"]),
    ],
)
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES.keys())
def test_the_lock_holds_what_the_project_declares(lock: str, extras: list[str], machine: dict[str, str]) -> None:
    pins = locked(lock, machine)
    declared = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    wanted = [one for one in map(Requirement, declared) if one.name != PROJECT["name"] and holds(one, machine)]
    assert [
        str(one) for one in wanted if pins.get(canonicalize_name(one.name), Version("0")) not in one.specifier
    ] == []


def test_the_lock_of_the_peers_holds_every_peer() -> None:
    peers = [Requirement(line) for line in (ROOT / "requirements" / "peers.in").read_text().splitlines() if line]
    assert {canonicalize_name(peer.name) for peer in peers} <= locked("peers.txt", {}).keys()
