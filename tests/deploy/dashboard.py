"""Reads the Prometheus queries of a Grafana dashboard."""

# The values that Grafana would fill in: all daemons, and a window of four scrapes.
VARIABLES = {"$instance": ".*", "$__rate_interval": "1m"}


def fill_in(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def panels(board):
    """Yields all panels, also those in collapsed rows."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def expressions(board):
    """Yields (title of the panel, PromQL) for every query of every panel."""
    for panel in panels(board):
        for target in panel.get("targets", []):
            yield panel["title"], fill_in(target["expr"])


def other_expressions(board):
    """Yields (name, PromQL) for annotations and variables."""
    for one in board["annotations"]["list"]:
        yield one["name"], fill_in(one["expr"])
    for one in board["templating"]["list"]:
        if one["type"] == "query":
            # label_values(SELECTOR, LABEL) is a function of Grafana, not of Prometheus.
            yield one["name"], one["query"]["query"].removeprefix("label_values(").rpartition(",")[0]
