"""What all dashboards are made of: panels over Prometheus' queries, in one look."""

from __future__ import annotations

from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.common import TooltipDisplayMode as Tooltip
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh, VariableSort

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_WIDTH = 24  # columns of Grafana's grid


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        legend: of each series, with {{labels}}.
        exemplars: whether single requests with their traces are shown among the series.
    """

    expr: str
    legend: str = ""
    exemplars: bool = False


def quantiles(metric: str, by: str, where: str, *, exemplars: bool = False) -> list[Query]:
    """Median, 95th and 99th percentile of a histogram, by one label."""
    of = f"sum by (le, {by}) (rate({metric}_bucket{{{where}}}[$__rate_interval]))"
    return [
        Query(f"histogram_quantile({q}, {of})", f"p{q * 100:.0f} {{{{{by}}}}}", exemplars and q == 0.95)
        for q in (0.5, 0.95, 0.99)
    ]


def graph(
    title: str, about: str, unit: str, queries: list[Query], *, width: int = 8, stacked: bool = False
) -> timeseries.Panel:
    """Lines over time.

    Args:
        about: what is shown and what is good; the panel's help.
        unit: Grafana's name of it.
        width: columns, of 24.
    """
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
    panel = (
        timeseries.Panel().title(title).description(about).unit(unit).datasource(SOURCE).span(width).height(8).min(0)
        .line_width(1).fill_opacity(20 if stacked else 5).legend(legend)
        .tooltip(common.VizTooltipOptions().mode(Tooltip.MULTI))
    )  # fmt: skip
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(number, query))
    return panel


def number(title: str, about: str, unit: str, expr: str, *, width: int = 4) -> stat.Panel:
    """One number, that of now, over its small curve."""
    return (
        stat.Panel().title(title).description(about).unit(unit).datasource(SOURCE).span(width).height(4)
        .graph_mode(BigValueGraphMode.AREA).with_target(_target(0, Query(expr)))
    )  # fmt: skip


def _target(number: int, query: Query) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + number)).range()
    if query.legend:
        target = target.legend_format(query.legend)
    return target.exemplar(True) if query.exemplars else target


def board(uid: str, title: str, about: str, choices: dict[str, str]) -> dashboard.Dashboard:
    """An empty dashboard.

    Args:
        choices: variables to choose by, and the query of the values of each.
    """
    made = (
        dashboard.Dashboard(title).uid(uid).description(about).tags(["triune"]).time("now-1h", "now").refresh("30s")
        .timezone("browser").editable().tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus").label("Data source"))
        .link(dashboard.DashboardLink("Triune").tags(["triune"]).as_dropdown(True).keep_time(True).include_vars(True))
    )  # fmt: skip
    for name, query in choices.items():
        made = made.with_variable(
            dashboard.QueryVariable(name).query(query).datasource(SOURCE).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC).multi(True).include_all(True).all_value(".*")
        )  # fmt: skip
    return made


def rows(made: dashboard.Dashboard, parts: dict[str, list[timeseries.Panel | stat.Panel]]) -> dashboard.Dashboard:
    """The dashboard with rows of panels, by the rows' titles.

    Raises:
        ValueError: the panels of a row do not fill lines of the grid.
    """
    for title, panels in parts.items():
        made = made.with_row(dashboard.Row(title))
        filled = 0
        for panel in panels:
            place = panel.build().grid_pos
            filled += place.w if place is not None else 0
            made = made.with_panel(panel)
        if filled % _WIDTH:
            raise ValueError(f"the panels of {title!r} are {filled} columns wide; expected a multiple of {_WIDTH}")
    return made
