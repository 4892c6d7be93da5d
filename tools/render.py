"""Renders the chart, and writes k8s/base from it: what is installed without Helm is what Helm installs.

python -m tools.render [--check]    write it, or exit 1 where it is not what would be written
"""

import sys
from pathlib import Path
from typing import Any, Final

import helm_python as helm
import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
CHART: Final = ROOT / "helm" / "psp-fleet"
BASE: Final = ROOT / "k8s" / "base"
NAME: Final = "fleet"
_HEAD: Final = "# Rendered from helm/psp-fleet by `python -m tools.render`: change the chart, or an overlay.\n"


def values_of(file: str | None) -> dict[str, Any]:
    """Return the values of a file of the chart; none: the chart's own."""
    text = (CHART / file).read_text() if file else ""
    values: dict[str, Any] = helm.values_from_yaml(text)
    return values


def render(
    values: dict[str, Any], *, name: str = NAME, namespace: str = "psp-fleet"
) -> dict[str, list[dict[str, Any]]]:
    """Return the manifests by template. Raises HelmValuesError where the schema refuses the values."""
    with helm.Chart.load(CHART) as chart:
        rendered = chart.render(values, name=name, namespace=namespace)
    found: dict[str, list[dict[str, Any]]] = {}
    for path, text in sorted(rendered.items()):
        if path.endswith(".yaml"):
            documents = [document for document in yaml.safe_load_all(text) if document]
            if documents:
                found[Path(path).name] = documents
    return found


def base() -> dict[str, str]:
    """Return the files of k8s/base by name."""
    manifests = render(values_of(None))
    files = {
        name: _HEAD + yaml.safe_dump_all(documents, sort_keys=False, width=1000)
        for name, documents in manifests.items()
    }
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(files),
    }
    return files | {"kustomization.yaml": _HEAD + yaml.safe_dump(kustomization, sort_keys=False)}


def main() -> int:
    """Write or compare."""
    wanted = base()
    if "--check" not in sys.argv:
        BASE.mkdir(parents=True, exist_ok=True)
        for path in BASE.glob("*.yaml"):
            path.unlink()
        for name, text in wanted.items():
            (BASE / name).write_text(text)
    elif {path.name: path.read_text() for path in BASE.glob("*.yaml")} != wanted:
        print("k8s/base is not what the chart renders: python -m tools.render")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
