"""Writes the dashboards for Grafana 11.6, of which compose mounts and the chart carries one set of files.

python -m tools.dashboards [--check]    write them, or exit 1 where they are not what would be written
"""

import sys
from itertools import count
from pathlib import Path
from string import ascii_uppercase
from typing import Final

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models

from tools.dashboard_panels import DASHBOARDS, Board, Panel

FOLDER: Final = Path(__file__).resolve().parent.parent / "helm" / "psp-fleet" / "files" / "dashboards"
_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_SINGLES_IN_A_ROW: Final = 6


def files() -> dict[str, str]:
    """Return each dashboard's file by its name."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    return {f"{board.file}.json": encoder.encode(_built(board)) + "\n" for board in DASHBOARDS}


def _built(board: Board) -> models.Dashboard:
    link = build.DashboardLink("psp-fleet").type(models.DashboardLinkType.DASHBOARDS).tags(["psp-fleet"])
    made = (
        build.Dashboard(board.title)
        .uid(board.uid)
        .description(board.says)
        .tags(["psp-fleet"])
        .timezone("utc")
        .refresh("10s")
        .time("now-1h", "now")
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(link.keep_time(True).as_dropdown(True))
        .with_variable(build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    if board.by_rail:
        rails = build.QueryVariable("rail").label("Rail").datasource(_SOURCE)
        rails.query("label_values(fleet_provider_calls_total, rail)")
        made.with_variable(rails.refresh(models.VariableRefresh.ON_DASHBOARD_LOAD))
    number = count(1)
    for row in board.rows:
        made.with_row(build.Row(row.title).id(next(number)))
        for panel in row.panels:
            made.with_panel((_figure(panel) if panel.single else _graph(panel)).id(next(number)))
    return made.build()


def _figure(panel: Panel) -> stat.Panel:
    steps = [models.Threshold(value=None, color="green" if panel.red_from is not None else "text")]
    if panel.red_from is not None:
        steps.append(models.Threshold(value=panel.red_from, color="red"))
    drawn = stat.Panel().title(panel.title).description(panel.says).unit(panel.unit).datasource(_SOURCE)
    drawn.thresholds(build.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    drawn.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    drawn.color_mode(options.BigValueColorMode.BACKGROUND if panel.red_from else options.BigValueColorMode.VALUE)
    for query in _queries(panel):
        drawn.with_target(query)
    return drawn.height(4).span(24 // _SINGLES_IN_A_ROW)


def _graph(panel: Panel) -> timeseries.Panel:
    drawn = timeseries.Panel().title(panel.title).description(panel.says).unit(panel.unit).datasource(_SOURCE)
    drawn.min(0).line_width(1).fill_opacity(8).show_points(options.VisibilityMode.NEVER)
    legend = common.VizLegendOptions().display_mode(options.LegendDisplayMode.LIST)
    drawn.legend(legend.placement(options.LegendPlacement.BOTTOM).show_legend(True))
    for query in _queries(panel):
        drawn.with_target(query)
    return drawn.height(8).span(12)


def _queries(panel: Panel) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery().expr(expression).legend_format(legend).datasource(_SOURCE).ref_id(letter)
        for letter, (expression, legend) in zip(ascii_uppercase, panel.queries, strict=False)
    ]


def main() -> int:
    """Write or compare."""
    wanted = files()
    if "--check" not in sys.argv:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name, text in wanted.items():
            (FOLDER / name).write_text(text)
    elif {path.name: path.read_text() for path in FOLDER.glob("*.json")} != wanted:
        print("the dashboards are not what tools/dashboard_panels.py says: python -m tools.dashboards")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
