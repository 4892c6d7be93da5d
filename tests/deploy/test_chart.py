"""What the chart renders, for every values file: valid objects, confined pods, and names that our code has."""

import importlib.util
import json
import subprocess
from collections.abc import Iterable, Iterator
from copy import deepcopy
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from core.settings import Settings
from schemas.streams import ADAPTERS_GROUP, jobs_stream, shards_of
from tests.deploy.custom_resources import KINDS, faults_of
from tests.deploy.environments import environment_of, required_of
from tools import alerts, dashboards
from tools.render import BASE, CHART, ROOT, base, render, values_of

VALUES = [None, *sorted(path.name for path in CHART.glob("values-*.yaml"))]
VERSIONS = ("1.29", "1.34")
every_values = pytest.mark.parametrize("values", VALUES, ids=lambda name: name or "values.yaml")


@cache
def objects(values: str | None) -> tuple[dict[str, Any], ...]:
    """Every object of a release, without the volumes of dashboards."""
    return tuple(document for documents in render(values_of(values)).values() for document in documents)


def of_kind(values: str | None, *kinds: str) -> list[dict[str, Any]]:
    return [each for each in objects(values) if each["kind"] in kinds]


def pods(values: str | None) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield (name, pod's spec, its one container)."""
    for each in of_kind(values, "Deployment", "Job"):
        spec = each["spec"]["template"]["spec"]
        assert len(spec["containers"]) == 1
        yield each["metadata"]["name"], spec, spec["containers"][0]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    named = selector.get("matchExpressions", [])
    return wanted.items() <= labels.items() and all(labels.get(each["key"]) in each["values"] for each in named)


@every_values
def test_the_chart_has_nothing_to_lint(values: str | None) -> None:
    report = helm.lint(str(CHART), values_of(values), strict=True, kube_version="v1.33.0")
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
@every_values
def test_every_object_is_what_kubernetes_takes(values: str | None, version: str) -> None:
    known = [each for each in objects(values) if each["kind"] not in KINDS]
    assert known
    for each in known:
        kubernetes_validate.validate(each, version, strict=True)


@every_values
def test_every_object_of_an_operator_is_what_that_takes(values: str | None) -> None:
    custom = [each for each in objects(values) if each["kind"] in KINDS]
    assert bool(custom) == (values != "values-small.yaml")
    for each in custom:
        assert faults_of(each) == [], each["metadata"]["name"]


@pytest.mark.parametrize(
    ("kind", "way", "right", "wrong"),
    [
        ("ScaledObject", ("spec",), "minReplicaCount", "minReplicas"),
        ("ScaledObject", ("spec", "triggers", 0, "metadata"), "consumerGroup", "consumergroup"),
        ("ScaledObject", ("spec", "triggers", 1, "metadata"), "pendingEntriesCount", "pendingEntries"),
        ("ScaledObject", ("spec", "triggers", 0), "authenticationRef", "authRef"),
        ("TriggerAuthentication", ("spec", "secretTargetRef", 0), "parameter", "param"),
        ("PodMonitor", ("spec",), "podMetricsEndpoints", "endpoints"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0), "port", "targetport"),
        ("PrometheusRule", ("spec", "groups", 1, "rules", 0), "annotations", "annotation"),
        ("ExternalSecret", ("spec", "data", 0, "remoteRef"), "property", "field"),
    ],
)
def test_a_misspelt_field_of_an_operators_object_is_found(
    kind: str, way: tuple[str | int, ...], right: str, wrong: str
) -> None:
    made = deepcopy(of_kind("values-production.yaml", kind)[0])
    assert faults_of(made) == []
    at: Any = made
    for step in way:
        at = at[step]
    at[wrong] = at.pop(right)
    assert faults_of(made)


@every_values
def test_no_two_objects_share_a_name(values: str | None) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in objects(values)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "wrong",
    [
        {"imge": {}},
        {"image": {"tga": "1"}},
        {"image": {"digest": "sha256:short"}},
        {"settings": {"fleet_batch": 1}},
        {"core": {"api": {"autoscaling": {"min": 1}}}},
        {"core": {"consoles": {}}},
        {"core": {"relay": {"replicas": 0}}},
        {"rails": {"promptpay": {"replica": 2}}},
        {"rails": {"PromptPay": {}}},
        {"rails": {"promptpay": {"scaling": {"lagCount": 5}}}},
        {"rails": {"promptpay": {"egress": [{"cidr": "anywhere", "port": 443}]}}},
        {"keda": {"redisAddress": "redis"}},
        {"networkPolicies": {"redis": {"to": [{}]}}},
        {"networkPolicies": {"webhooks": {"port": 443}}},
        {"networkPolicies": {"webhooks": {"to": []}}},
        {"networkPolicies": {"otlp": {"to": [{"cidr": "10.0.0.0/8"}]}}},
        {"database": {"readonly": True}},
        {"rails": {"promptpay": {"egress": []}}},
        {"externalSecrets": {"store": {"kind": "Store"}}},
    ],
    ids=json.dumps,
)
def test_a_typo_in_values_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError):
        render(wrong)


@every_values
def test_every_pod_is_confined(values: str | None) -> None:
    for name, spec, container in pods(values):
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@every_values
def test_every_variable_is_one_that_the_process_reads_and_every_file_is_mounted(values: str | None) -> None:
    for name, spec, container in pods(values):
        command = container["command"]
        assert command[:2] == ["python", "-m"]
        assert importlib.util.find_spec(command[2]) is not None
        variables = {each["name"]: each.get("value", "") for each in container["env"]}
        assert len(variables) == len(container["env"])
        assert variables.keys() - environment_of(command[2]) == set(), name
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.keys() == {volume["name"] for volume in spec["volumes"]}
        files = [value for variable, value in variables.items() if variable.endswith("_FILE")]
        assert files
        assert all(file.startswith(mounts["secrets"] + "/") for file in files)


@every_values
def test_liveness_asks_for_the_loops_alone(values: str | None) -> None:
    for name, _, container in pods(values):
        if "livenessProbe" in container:
            ports = {port["name"] for port in container["ports"]}
            assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
            assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
            assert container["livenessProbe"]["httpGet"]["port"] in ports
        else:
            assert name == "fleet-migrate"


@every_values
def test_an_adapter_gets_longer_to_end_than_it_drains(values: str | None) -> None:
    for each in of_kind(values, "Deployment"):
        spec = each["spec"]["template"]["spec"]
        variables = {item["name"]: item.get("value", "") for item in spec["containers"][0]["env"]}
        assert spec["terminationGracePeriodSeconds"] > float(variables.get("FLEET_DRAIN_S", "20"))


@every_values
def test_each_deployment_has_its_selector_its_budget_and_a_way_to_its_servers(values: str | None) -> None:
    budgets, policies = of_kind(values, "PodDisruptionBudget"), of_kind(values, "NetworkPolicy")
    for each in of_kind(values, "Deployment"):
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert matches(each["spec"]["selector"], labels)
        own = [budget for budget in budgets if matches(budget["spec"]["selector"], labels)]
        assert [budget["spec"]["maxUnavailable"] for budget in own] == [1], each["metadata"]["name"]
        ways = [rule for policy in policies if matches(policy["spec"]["podSelector"], labels)
                for rule in policy["spec"].get("egress", [])]  # fmt: skip
        ports = {port["port"] for rule in ways for port in rule["ports"]}
        adapter = labels["app.kubernetes.io/component"].startswith("rail-")
        assert (5432 in ports) is not adapter, "the database is the core's alone"
        assert {6379, 6380} & ports


def ways_out(made: Iterable[dict[str, Any]], labels: dict[str, str]) -> list[dict[str, Any]]:
    """Return every rule that lets a pod with these labels out."""
    return [rule for each in made if each["kind"] == "NetworkPolicy" and matches(each["spec"]["podSelector"], labels)
            for rule in each["spec"].get("egress", [])]  # fmt: skip


def deployed(made: Iterable[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the labels of each Deployment's pods by its component."""
    found = [each["spec"]["template"]["metadata"]["labels"] for each in made if each["kind"] == "Deployment"]
    return {labels["app.kubernetes.io/component"]: labels for labels in found}


def lets_through(rules: Iterable[dict[str, Any]], address: str, port: int) -> bool:
    """Whether some rule with addresses lets a packet to this address go."""
    ip = ip_address(address)
    return any(
        ip in ip_network(block["cidr"]) and not any(ip in ip_network(hole) for hole in block.get("except", []))
        for rule in rules
        if port in {each["port"] for each in rule["ports"]}
        for block in (peer["ipBlock"] for peer in rule.get("to", []) if "ipBlock" in peer)
        if ip_network(block["cidr"]).version == ip.version
    )


@every_values
def test_the_resolver_alone_reaches_receivers_of_webhooks_and_none_that_is_private(values: str | None) -> None:
    for component, labels in deployed(objects(values)).items():
        rules = ways_out(objects(values), labels)
        for public in ("93.184.216.34", "2606:2800:220:1::1"):
            assert lets_through(rules, public, 443) == (component == "resolver"), component
        for private in ("10.1.2.3", "169.254.169.254", "192.168.0.1", "172.31.0.1", "100.64.0.1", "::1", "fd00::1"):
            assert not lets_through(rules, private, 443)


def test_webhooks_can_be_kept_in() -> None:
    values = {"networkPolicies": {"webhooks": {"enabled": False}}}
    made = [document for documents in render(values).values() for document in documents]
    assert not lets_through(ways_out(made, deployed(made)["resolver"]), "93.184.216.34", 443)


def test_where_spans_are_exported_every_process_reaches_the_collector() -> None:
    for values, expected in ((None, False), ("values-production.yaml", True)):
        for component, labels in deployed(objects(values)).items():
            ports = {port["port"] for rule in ways_out(objects(values), labels) for port in rule["ports"]}
            assert (4318 in ports) is expected, component
    for name, _, container in pods("values-production.yaml"):
        given = {each["name"]: each.get("value", "") for each in container["env"]}
        assert given.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").endswith(":4318") or name == "fleet-migrate"


@every_values
def test_each_rail_reaches_its_own_provider_and_no_other(values: str | None) -> None:
    nets = {}
    for component, labels in deployed(objects(values)).items():
        if component.startswith("rail-"):
            rules = ways_out(objects(values), labels)
            nets[component] = {peer["ipBlock"]["cidr"] for rule in rules for peer in rule.get("to", [])
                               if "ipBlock" in peer and not peer["ipBlock"]["cidr"].startswith("10.")}  # fmt: skip
    assert nets.keys() == {"rail-promptpay", "rail-sbp", "rail-bank"}
    assert all(len(found) == 1 for found in nets.values()), nets
    assert len(set().union(*nets.values())) == len(nets)


def test_in_production_every_rail_moves_real_money() -> None:
    made = list(objects("values-production.yaml"))
    for rail in ("promptpay", "sbp", "bank"):
        assert _variables(made, f"fleet-rail-{rail}")[f"{rail.upper()}_ENVIRONMENT"] == "production"


def test_a_standby_and_a_direct_way_are_addresses_of_the_cores_secret() -> None:
    values = {"database": {"standby": True, "direct": True}, "externalSecrets": {"enabled": True}}
    made = [document for documents in render(values).values() for document in documents]
    for role in ("api", "console", "relay", "settler", "resolver"):
        found = _variables(made, f"fleet-{role}")
        assert found["DATABASE_READ_URL_FILE"] == "/run/fleet/database_read_url"
        assert found["DATABASE_DIRECT_URL_FILE"] == "/run/fleet/database_direct_url"
    (secret,) = [each for each in made if each["kind"] == "ExternalSecret" and each["metadata"]["name"] == "fleet-core"]
    assert {"database_read_url", "database_direct_url"} <= {each["secretKey"] for each in secret["spec"]["data"]}
    assert "DATABASE_READ_URL_FILE" not in _variables(list(objects(None)), "fleet-api")


@every_values
def test_the_api_is_scaled_by_what_it_computes_unless_that_is_off(values: str | None) -> None:
    api = next(each for each in of_kind(values, "Deployment") if each["metadata"]["name"] == "fleet-api")
    scalers = of_kind(values, "HorizontalPodAutoscaler")
    assert bool(scalers) == (values != "values-small.yaml") == ("replicas" not in api["spec"])
    for each in scalers:
        spec = each["spec"]
        assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "fleet-api"}
        assert 2 <= spec["minReplicas"] < spec["maxReplicas"]
        (metric,) = spec["metrics"]
        assert metric["resource"]["name"] == "cpu"
        assert 0 < metric["resource"]["target"]["averageUtilization"] <= 90
        # A share of what is requested: without a request there is nothing to divide by.
        assert api["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]


@every_values
def test_pods_of_a_deployment_are_spread_over_zones_and_machines(values: str | None) -> None:
    for each in of_kind(values, "Deployment"):
        template = each["spec"]["template"]
        spread = template["spec"]["topologySpreadConstraints"]
        assert [rule["topologyKey"] for rule in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        for rule in spread:
            assert matches(rule["labelSelector"], template["metadata"]["labels"])
            assert rule["labelSelector"]["matchLabels"]["app.kubernetes.io/component"], "a component of its own"
            assert (rule["maxSkew"], rule["whenUnsatisfiable"]) == (1, "ScheduleAnyway")


def test_the_migration_runs_before_new_code_and_after_its_secrets() -> None:
    (job,) = of_kind("values-production.yaml", "Job")
    hooks = job["metadata"]["annotations"]
    assert hooks["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert set(hooks["helm.sh/hook-delete-policy"].split(",")) == {"before-hook-creation", "hook-succeeded"}
    assert job["spec"]["template"]["spec"]["containers"][0]["command"][2:] == ["fleet.deploy", "migrate"]
    for secret in of_kind("values-production.yaml", "ExternalSecret"):
        before = secret["metadata"]["annotations"]
        assert before["helm.sh/hook"] == hooks["helm.sh/hook"]
        assert int(before["helm.sh/hook-weight"]) < int(hooks.get("helm.sh/hook-weight", "0"))


@every_values
def test_every_process_that_stays_is_scraped_where_it_shows_its_figures(values: str | None) -> None:
    for monitor in of_kind(values, "PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        for each in of_kind(values, "Deployment"):
            template = each["spec"]["template"]
            assert matches(monitor["spec"]["selector"], template["metadata"]["labels"])
            ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
            told = _variables([each], each["metadata"]["name"])
            expected = told.get("FLEET_METRICS_PORT") or told.get("FLEET_HEALTH_PORT") or "8081"
            assert str(ports[endpoint["port"]]) == expected
            assert endpoint["path"] == "/metrics"


@every_values
def test_a_rail_is_scaled_by_what_waits_and_by_what_a_crash_left(values: str | None) -> None:
    deployments = {each["metadata"]["name"]: each for each in of_kind(values, "Deployment")}
    scaled = of_kind(values, "ScaledObject")
    for each in scaled:
        target = deployments[each["spec"]["scaleTargetRef"]["name"]]
        assert "replicas" not in target["spec"]
        assert each["spec"]["minReplicaCount"] >= 1
        triggers = [trigger["metadata"] for trigger in each["spec"]["triggers"]]
        environment = {item["name"]: item.get("value", "") for item in
                       target["spec"]["template"]["spec"]["containers"][0]["env"]}  # fmt: skip
        shards = shards_of(
            each["metadata"]["name"].removeprefix("fleet-rail-"), int(environment.get("FLEET_SHARDS", "1"))
        )
        assert {"lagCount", "pendingEntriesCount"} == {
            key for each in triggers for key in each if key.endswith("Count")
        }
        assert sorted(trigger["stream"] for trigger in triggers) == sorted(2 * [jobs_stream(name) for name in shards])
        assert {trigger["consumerGroup"] for trigger in triggers} == {ADAPTERS_GROUP}
    assert bool(scaled) == values_of(values).get("keda", {}).get("enabled", True)


def _variables(objects: list[dict[str, Any]], name: str) -> dict[str, str]:
    (found,) = [each for each in objects if each["kind"] == "Deployment" and each["metadata"]["name"] == name]
    return {item["name"]: item.get("value", "") for item in found["spec"]["template"]["spec"]["containers"][0]["env"]}


def test_a_second_rail_is_one_entry_and_more_streams_are_one_number() -> None:
    values = {
        "rails": {
            "promptpay": {"shards": 3},
            "noop": {"replicas": 5, "egress": [{"cidr": "192.0.2.192/26", "port": 443}]},
        }
    }
    values["keda"] = {"enabled": False}
    made = [document for documents in render(values).values() for document in documents]
    found = {each["metadata"]["name"]: each for each in made if each["kind"] == "Deployment"}
    assert {"fleet-rail-promptpay", "fleet-rail-noop"} <= found.keys()
    assert found["fleet-rail-noop"]["spec"]["replicas"] == 5
    assert found["fleet-rail-promptpay"]["spec"]["replicas"] == 2
    assert _variables(made, "fleet-rail-promptpay")["FLEET_SHARDS"] == "3"
    assert "FLEET_SHARDS" not in _variables(made, "fleet-rail-noop")
    core = _variables(made, "fleet-relay")
    assert core["FLEET_RAILS"] == "bank,noop,promptpay,sbp"
    settings = Settings.model_construct(rails=core["FLEET_RAILS"], rail_shards=core["FLEET_RAIL_SHARDS"])
    assert [part.shard(rail) for rail, part in settings.rail_parts if rail == "promptpay"] == shards_of("promptpay", 3)


@pytest.mark.parametrize(
    ("values", "kind"), [("values-redis-cluster.yaml", "cluster"), ("values-redis-sentinel.yaml", "sentinel")]
)
def test_a_scaler_asks_a_cluster_and_sentinels_in_their_own_way(values: str, kind: str) -> None:
    triggers = [trigger for each in of_kind(values, "ScaledObject") for trigger in each["spec"]["triggers"]]
    assert {trigger["type"] for trigger in triggers} == {f"redis-{kind}-streams"}
    assert all("," in trigger["metadata"]["addresses"] for trigger in triggers)
    assert all("address" not in trigger["metadata"] for trigger in triggers)
    assert {trigger["metadata"].get("sentinelMaster", "") for trigger in triggers} <= {"", "fleet"}


def test_processes_reach_the_sentinels_too() -> None:
    """Each policy that lets a pod go to Redis lets it go to the Sentinels."""
    for policy in of_kind("values-redis-sentinel.yaml", "NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            ports = {port["port"] for port in rule["ports"]}
            assert (6379 in ports) == (26379 in ports), policy["metadata"]["name"]


@every_values
def test_every_variable_that_a_process_cannot_do_without_is_set(values: str | None) -> None:
    for name, _, container in pods(values):
        given = {each["name"].removesuffix("_FILE") for each in container["env"]}
        assert required_of(container["command"][2]) <= given, name


def test_rules_and_dashboards_arrive_whole_with_links_of_their_own() -> None:
    values = "values-production.yaml"
    (rule,) = of_kind(values, "PrometheusRule")
    rules = [each for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each]
    assert [each["alert"] for each in rules] == [alert.name for alert in alerts.ALERTS]
    assert {each["annotations"]["dashboard_url"].rpartition("/d/")[0] for each in rules} == {"https://grafana.internal"}
    assert all(each["annotations"]["runbook_url"].startswith("https://runbooks.internal/") for each in rules)
    maps = {name: text for each in of_kind(values, "ConfigMap") for name, text in each["data"].items()}
    assert {name: json.loads(text) for name, text in maps.items()} == {
        name: json.loads(text) for name, text in dashboards.files().items()
    }


def test_every_secret_that_a_pod_mounts_is_made_with_every_key_that_it_reads() -> None:
    values = "values-production.yaml"
    made = {each["metadata"]["name"]: {item["secretKey"] for item in each["spec"]["data"]}
            for each in of_kind(values, "ExternalSecret")}  # fmt: skip
    for _, spec, container in pods(values):
        (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "secrets"]
        names = (
            [volume["secret"]["secretName"]]
            if "secret" in volume
            else [source["secret"]["name"] for source in volume["projected"]["sources"]]
        )
        available = set().union(*(made[name] for name in names))
        read = {item["value"].rpartition("/")[2] for item in container["env"] if item["name"].endswith("_FILE")}
        assert read <= available


def test_the_base_without_helm_is_what_the_chart_renders() -> None:
    assert {path.name: path.read_text() for path in BASE.glob("*.yaml")} == base()


@pytest.mark.needs("kubectl")
@pytest.mark.parametrize("overlay", ["dev", "production"])
def test_an_overlay_builds_valid_objects_and_changes_what_it_says(overlay: str) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "k8s" / "overlays" / overlay)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    made = [each for each in yaml.safe_load_all(built.stdout) if each]
    for each in made:
        if each["kind"] in KINDS:
            assert faults_of(each) == []
        else:
            kubernetes_validate.validate(each, VERSIONS[-1], strict=True)
    images = {
        each["spec"]["template"]["spec"]["containers"][0]["image"] for each in made if each["kind"] == "Deployment"
    }
    replicas = {each["metadata"]["name"]: each["spec"].get("replicas") for each in made if each["kind"] == "Deployment"}
    if overlay == "dev":
        assert images == {"psp-fleet:dev"}
        assert set(replicas.values()) == {1}
    else:
        jobs = {each["spec"]["template"]["spec"]["containers"][0]["image"] for each in made if each["kind"] == "Job"}
        (named,) = yaml.safe_load((ROOT / "k8s/overlays/production/kustomization.yaml").read_text())["images"]
        assert images | jobs == {f"{named['newName']}@{named['digest']}"}
        assert replicas["fleet-settler"] == 3
        for rail in ("promptpay", "sbp", "bank"):
            assert _variables(made, f"fleet-rail-{rail}")[f"{rail.upper()}_ENVIRONMENT"] == "production"
            rules = ways_out(made, deployed(made)[f"rail-{rail}"])
            cidrs = {peer["ipBlock"]["cidr"] for rule in rules for peer in rule.get("to", []) if "ipBlock" in peer}
            assert {cidr.rpartition(".")[0] for cidr in cidrs} == {"203.0.113"}, "the network of the chart's example"


def test_the_notes_name_every_secret_that_must_exist() -> None:
    with helm.Chart.load(CHART) as chart:
        notes = chart.render({}, name="fleet", namespace="x")["psp-fleet/templates/NOTES.txt"]
    for name in (
        "fleet-core",
        "fleet-migrate",
        "fleet-keda",
        "fleet-rail-promptpay",
        "fleet-rail-sbp",
        "fleet-rail-bank",
    ):
        assert name in notes


def test_the_base_says_where_it_comes_from() -> None:
    assert all("tools.render" in path.read_text().splitlines()[0] for path in Path(BASE).glob("*.yaml"))
