"""More processes of the core beside a running stack, as a deployment with several of each has them."""

import sys
from dataclasses import dataclass

from fleet.stack.processes import free_port
from fleet.stack.provision import Secrets, role_urls, with_database
from fleet.stack.stack import Stack
from fleet.stack.supervisor import ChildSpec


@dataclass(frozen=True, slots=True)
class CoreProcess:
    """A process that can be started by a supervisor, and where it answers."""

    spec: ChildSpec
    public_url: str
    base_url: str
    """Where /healthz, /readyz and /metrics are."""


def core_process(stack: Stack, name: str, *roles: str) -> CoreProcess:
    """Return a process with these roles on the stack's own servers."""
    if stack.postgres is None:
        raise RuntimeError("the server is not the stack's own")
    kept = Secrets.load_or_create(stack.home / "secrets.json")
    urls = role_urls(with_database(stack.postgres.admin_url, "fleet"), kept)
    public, port = free_port(), free_port()
    env = {
        "DATABASE_URL": urls.app,
        "DATABASE_WORKER_URL": urls.worker,
        "REDIS_URL": stack.info.redis_url,
        "FLEET_MASTER_KEY": kept.master_key,
        "FLEET_RAILS": ",".join(stack.plan.rails),
        "FLEET_INSTANCE": name,
        **stack.plan.profile.core_env(),
    }
    ports = {"FLEET_PUBLIC_PORT": str(public), "FLEET_INTERNAL_PORT": str(port)}
    own = ports if "api" in roles else {"FLEET_METRICS_PORT": str(port)}
    if "console" in roles:
        own["FLEET_CONSOLE_PORT"] = str(free_port())
    spec = ChildSpec(name, (sys.executable, "-m", "core", *roles), {**env, **own})
    return CoreProcess(spec, f"http://127.0.0.1:{public}", f"http://127.0.0.1:{port}")
