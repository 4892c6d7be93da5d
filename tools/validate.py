"""`./dev validate`: what others' machines will make of our files, in the order in which a fault is cheapest to find.

The chart for every values file (lint, schema, Kubernetes objects for two versions), the overlays, compose, the
Dockerfile, Prometheus rules and their unit tests, Alertmanager, the dashboards' queries. `--slow` adds the policies of
checkov, in an environment of its own, over everything that is rendered. Names what is left out for want of a program.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from tools.render import CHART, ROOT, render, values_of

_POLICY: Final = ROOT / ".venv-policy"
_LOCK: Final = ROOT / "requirements" / "policy.txt"
_SKIPPED: Final = {
    "CKV_K8S_43": "an image is named by digest in values-production.yaml; a tag is what a developer has",
    "CKV_K8S_15": "with a tag that never changes, pulling always costs a start without its registry",
    "CKV_K8S_21": "the namespace is the installer's",
    "CKV_K8S_11": "a limit of processor time throttles payments; requests reserve it",
}
"""Policies that are not followed, and why."""


def steps() -> Iterator[tuple[str, list[str], str]]:
    """Yield name, command and the program that it needs, in order."""
    python = sys.executable
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    yield "the chart and what it renders", [*pytest, "tests/deploy/test_chart.py"], python
    yield "k8s/base is what the chart renders", [python, "-m", "tools.render", "--check"], python
    for overlay in sorted((ROOT / "k8s" / "overlays").iterdir()):
        yield f"the overlay {overlay.name}", ["kubectl", "kustomize", str(overlay)], "kubectl"
    yield "compose and the Dockerfile", [*pytest, "tests/deploy/test_compose.py"], python
    yield "secrets", [*pytest, "tests/deploy/test_secrets.py"], python
    yield "rules, routing and dashboards", [*pytest, "tests/deploy/test_dashboards.py"], "promtool"


def policies() -> list[str]:
    """Run checkov over every rendered object; return what it finds, one line each."""
    if not (_POLICY / "bin" / "checkov").exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([str(uv), "venv", "-q", "--python", sys.executable, str(_POLICY)], check=True)
        install = [str(uv), "pip", "install", "-q", "--python", str(_POLICY / "bin" / "python"), "--require-hashes"]
        subprocess.run([*install, "-r", str(_LOCK)], check=True)
    with tempfile.TemporaryDirectory(prefix="fleet-policy-") as folder:
        for values in (None, *sorted(path.name for path in CHART.glob("values-*.yaml"))):
            objects = [each for documents in render(values_of(values)).values() for each in documents]
            (Path(folder) / (values or "values.yaml")).write_text(yaml.safe_dump_all(objects))
        command = [str(_POLICY / "bin" / "checkov"), "-d", folder, "--framework", "kubernetes", "--skip-download"]
        command += ["--compact", "--quiet", "--skip-check", ",".join(_SKIPPED)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else (done.stdout + done.stderr).splitlines()


def main(arguments: list[str] | None = None) -> int:
    """Validate. Exit code 0: all is well; 1: what failed is named at the end."""
    parser = argparse.ArgumentParser(prog="./dev validate", description=__doc__)
    parser.add_argument("--slow", action="store_true", help="also the policies, in an environment of their own")
    parser.add_argument("--require-all", action="store_true", help="a program that is missing is a failure")
    chosen = parser.parse_args(arguments)
    failed = []
    for name, command, program in steps():
        if shutil.which(program) is None:
            print(f"left out: {name}: {program} is not installed", flush=True)
            failed += [name] if chosen.require_all else []
            continue
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        print(f"{'ok' if done.returncode == 0 else 'FAILED':7} {name}", flush=True)
        if done.returncode != 0:
            failed.append(name)
            print((done.stdout + done.stderr)[-4000:])
    if chosen.slow:
        found = policies()
        print(f"{'FAILED' if found else 'ok':7} policies ({len(_SKIPPED)} not followed, each with its reason)")
        print("\n".join(found))
        failed += ["policies"] if found else []
    if failed:
        sys.stderr.write(f"validate: {'; '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
