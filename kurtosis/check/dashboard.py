"""The dashboard's queries beside the metrics that docs/STATUS.md has."""

import json
import re

from engine import PACKAGE

STATUS = PACKAGE.parent / "docs" / "STATUS.md"
DASHBOARD = PACKAGE / "grafana" / "steadfast.json"

ROW = re.compile(r"^\| `(steadfast_\w+)` \|([^|]*)\|", re.MULTILINE)
SELECTOR = re.compile(r"\b(steadfast_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUP = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
LEGEND = re.compile(r"\{\{\s*(\w+)\s*\}\}")
HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


def documented():
    """The labels of each metric."""
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in ROW.findall(STATUS.read_text())}


def load():
    return json.loads(DASHBOARD.read_text())


def queries(dashboard):
    """Title, query and legend of each query."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


def labels_of(metric, metrics):
    """None if there is no such metric."""
    if metric in metrics:
        return metrics[metric]
    base = HISTOGRAM.sub("", metric)
    if base in metrics and base != metric:
        return metrics[base] | ({"le"} if metric.endswith("_bucket") else set())
    return None


def problems(query, legend, metrics):
    selectors = SELECTOR.findall(query)
    if not selectors:
        yield "names no metric"
    grouped = {label.strip() for group in GROUP.findall(query) for label in group.split(",")}
    for metric, inner in selectors:
        labels = labels_of(metric, metrics)
        if labels is None:
            yield f"{metric} is not in docs/STATUS.md"
            continue
        filtered = dict(LABEL.findall(inner))
        if unknown := (filtered.keys() | grouped) - labels:
            yield f"{metric} has no label {', '.join(sorted(unknown))}"
        if "network" in labels and filtered.get("network") != "$network":
            yield f"{metric} is not asked for the chosen network"
        if unknown := set(LEGEND.findall(legend)) - (grouped or labels):
            yield f"the legend names {', '.join(sorted(unknown))}, which the answer does not have"
