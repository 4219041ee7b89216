"""The queries of dashboard and alerts, beside the metrics that docs/METRICS.md has."""

import json
import re
from pathlib import Path

import yaml

DEPLOY = Path(__file__).parent.parent
ROOT = DEPLOY.parent
DASHBOARD = DEPLOY / "grafana" / "steadfast.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"

ROW = re.compile(r"^\| `(\w+)` \|([^|]*)\|", re.MULTILINE)
SELECTOR = re.compile(r"\b((?:steadfast|process)_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUP = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
LEGEND = re.compile(r"\{\{\s*(\w+)\s*\}\}")
HISTOGRAM = re.compile(r"_(bucket|sum|count)$")
# Those that Prometheus gives each series by itself, and its operator in Kubernetes.
TARGET = {"job", "instance", "pod"}


def documented():
    """The labels of each metric."""
    text = (ROOT / "docs" / "METRICS.md").read_text()
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in ROW.findall(text)}


def dashboard():
    return json.loads(DASHBOARD.read_text())


def panels(board):
    """Those that ask something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def asked_by_dashboard(board):
    """Title, query and legend of each query."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]
    for note in board["annotations"]["list"]:
        yield note["name"], note["expr"], note["textFormat"]


def alerts():
    """Each alert, as its rule stands."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return group["rules"]


def selectors(query):
    """The series that a query names, each once, as queries of their own."""
    return {
        name + ("{" + inner + "}" if inner else "") for name, inner in SELECTOR.findall(query)
    }


def filled(query):
    """A query of the dashboard as Grafana would ask it."""
    for place, value in {
        "$__rate_interval": "10s",
        "$__interval": "5s",
        "$network": "default",
        "$instance": ".+",
    }.items():
        query = query.replace(place, value)
    return query


def labels_of(metric, metrics):
    """None if there is no such metric."""
    if metric in metrics:
        return metrics[metric]
    base = HISTOGRAM.sub("", metric)
    if base in metrics and base != metric:
        return metrics[base] | ({"le"} if metric.endswith("_bucket") else set())
    return None


def problems(query, legend, metrics, of_dashboard=True):
    found = SELECTOR.findall(query)
    if not found:
        yield "names no metric"
    grouped = {label.strip() for group in GROUP.findall(query) for label in group.split(",")}
    there = set(TARGET)
    for metric, inner in found:
        labels = labels_of(metric, metrics)
        if labels is None:
            yield f"{metric} is not in docs/METRICS.md"
            continue
        there |= labels
        filtered = dict(LABEL.findall(inner))
        if unknown := filtered.keys() - labels - TARGET:
            yield f"{metric} has no label {', '.join(sorted(unknown))}"
        if of_dashboard and "network" in labels and filtered.get("network") != "$network":
            yield f"{metric} is not asked for the chosen network"
        if of_dashboard and filtered.get("instance") != "$instance":
            yield f"{metric} is not asked for the chosen replicas"
    if unknown := grouped - there:
        yield f"no metric has the label {', '.join(sorted(unknown))}"
    if unknown := set(LEGEND.findall(legend)) - (grouped or there):
        yield f"the legend names {', '.join(sorted(unknown))}, which the answer does not have"
