"""Every query of a dashboard and of a rule is PromQL, and names only what the code declares."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from adapters.runtime.verdicts import Action
from schemas.results import Verdict
from schemas.streams import ADAPTERS_GROUP, CORE_GROUP
from tests.deploy.queries import grouping_labels, selectors
from tests.support.tools import run_tool
from tools import alerts, dashboards
from tools.dashboard_panels import DASHBOARDS
from tools.metrics import series
from tools.observed import SCENARIOS as SCENARIOS_OF_OBSERVE

ROOT = Path(__file__).parents[2]
RULES = [rule for group in yaml.safe_load(alerts.rules())["groups"] for rule in group["rules"]]
RECORDED = {rule["record"]: frozenset[str]() for rule in RULES if "record" in rule}
FOREIGN = {
    "up": frozenset[str](),
    "process_cpu_seconds_total": frozenset[str](),
    "process_resident_memory_bytes": frozenset[str](),
}
KNOWN = series() | RECORDED | FOREIGN
SCENARIOS = [Path(__file__).with_name(name) for name in ("rules_test.yml", "rules_long_test.yml")]
CLOSED = {
    "action": {action.value for action in Action},
    "outcome": {verdict.value for verdict in Verdict}
    | {"settled", "failed", "expired", "unresolved"}
    | {"found", "finished", "parked", "moved"}
    | {"refused"},
    "group": {ADAPTERS_GROUP, CORE_GROUP},
    "listener": {"public", "internal"},
    "severity": {"page", "ticket"},
    "status": {"2xx", "3xx", "4xx", "5xx"},
}
"""Values that a query may match these labels by: a word that no process says would match nothing for ever."""
OF_THE_SCRAPE = {"instance", "job"}


def panel_queries() -> Iterator[tuple[str, str]]:
    for name, text in dashboards.files().items():
        for panel in json.loads(text)["panels"]:
            for target in panel.get("targets", []):
                yield f"{name}: {panel['title']}", target["expr"].replace("$rail", "promptpay")


QUERIES = [
    *panel_queries(),
    *(("rule: " + rule.get("alert", rule.get("record")), rule["expr"]) for rule in RULES),
]


@pytest.mark.parametrize(("where", "expression"), QUERIES, ids=[where for where, _ in QUERIES])
def test_a_query_is_promql_over_series_and_labels_that_exist(where: str, expression: str) -> None:
    names: set[str] = set()
    for name, labels in selectors(expression):
        assert name in KNOWN, f"{where}: no code declares {name}"
        unknown = labels.keys() - KNOWN[name] - OF_THE_SCRAPE
        assert not unknown, f"{where}: {name} has no label {unknown}"
        for label in labels.keys() & CLOSED.keys():
            assert labels[label] in CLOSED[label], f"{where}: {label} is never {labels[label]!r}"
        names.add(name)
    allowed = set().union(*(KNOWN[name] for name in names)) | OF_THE_SCRAPE
    assert grouping_labels(expression) <= allowed, where


def test_a_legend_names_labels_that_the_query_keeps() -> None:
    for board in DASHBOARDS:
        for panel in (panel for row in board.rows for panel in row.panels):
            for expression, legend in panel.queries:
                named = set(re.findall(r"{{(\w+)}}", legend))
                kept = grouping_labels(expression) or OF_THE_SCRAPE
                assert named <= kept, f"{panel.title}: {named - kept}"


def test_titles_and_ids_of_a_dashboard_are_unique_and_every_panel_is_described() -> None:
    for board in DASHBOARDS:
        panels = [panel for row in board.rows for panel in row.panels]
        titles = [panel.title for panel in panels]
        assert len(set(titles)) == len(titles)
        assert all(panel.says for panel in panels)
    assert len({board.uid for board in DASHBOARDS}) == len(DASHBOARDS) == 5


def test_the_written_files_are_what_the_tools_write() -> None:
    assert {path.name: path.read_text() for path in dashboards.FOLDER.glob("*.json")} == dashboards.files()
    assert alerts.RULES.read_text() == alerts.rules()


@pytest.mark.parametrize("alert", alerts.ALERTS, ids=lambda alert: alert.name)
def test_an_alert_leads_to_a_dashboard_and_to_its_page_in_the_runbook(alert: alerts.Alert) -> None:
    assert alert.dashboard in {board.uid for board in DASHBOARDS}
    headings = re.findall(r"^#+ (.+)$", (ROOT / alerts.RUNBOOK).read_text(), re.MULTILINE)
    assert alert.name.lower() in {heading.strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("scenarios", SCENARIOS, ids=lambda path: path.stem)
def test_the_rules_fire_in_their_scenario_and_keep_silent_without_it(scenarios: Path) -> None:
    run_tool("promtool", "check", "rules", str(alerts.RULES))
    run_tool("promtool", "test", "rules", str(scenarios))


def test_every_alert_has_a_scenario() -> None:
    scenarios = [scenario for file in SCENARIOS for scenario in yaml.safe_load(file.read_text())["tests"]]
    fired = {
        case["alertname"]
        for scenario in scenarios
        for case in scenario.get("alert_rule_test", ())
        if case.get("exp_alerts")
    }
    assert fired == {alert.name for alert in alerts.ALERTS}


@pytest.mark.needs("promtool")
def test_prometheus_takes_its_configuration() -> None:
    run_tool("promtool", "check", "config", "--syntax-only", str(ROOT / "deploy/prometheus/prometheus.yml"))


@pytest.mark.needs("amtool")
@pytest.mark.parametrize(("severity", "receiver"), [("page", "pages"), ("ticket", "tickets")])
def test_an_alert_goes_to_whom_its_severity_names(severity: str, receiver: str) -> None:
    assert severity in {alert.severity for alert in alerts.ALERTS}
    file = str(ROOT / "deploy/alertmanager/alertmanager.yml")
    labels = [f"severity={severity}", "alertname=Any", "rail=promptpay"]
    run_tool("amtool", "config", "routes", "test", f"--config.file={file}", f"--verify.receivers={receiver}", *labels)


def test_every_alert_is_caused_by_a_scenario_of_observe() -> None:
    assert {name for scenario in SCENARIOS_OF_OBSERVE for name in scenario.alerts} == {
        alert.name for alert in alerts.ALERTS
    }


@pytest.mark.needs("amtool")
def test_alertmanager_takes_its_configuration() -> None:
    run_tool("amtool", "check-config", str(ROOT / "deploy/alertmanager/alertmanager.yml"))
