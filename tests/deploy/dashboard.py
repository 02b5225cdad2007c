"""What a Grafana dashboard asks Prometheus for."""

# As Grafana would fill them in: all daemons, and a window of four scrapes.
VARIABLES = {"$instance": ".*", "$__rate_interval": "1m"}


def fill_in(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def panels(board):
    """All panels, those in rows that are folded too."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def expressions(board):
    """(title of the panel, PromQL) of every query of every panel."""
    for panel in panels(board):
        for target in panel.get("targets", []):
            yield panel["title"], fill_in(target["expr"])


def other_expressions(board):
    """(name, PromQL) of annotations and variables."""
    for one in board["annotations"]["list"]:
        yield one["name"], fill_in(one["expr"])
    for one in board["templating"]["list"]:
        if one["type"] == "query":
            # label_values(SELECTOR, LABEL) is Grafana's, not Prometheus'.
            yield one["name"], one["query"]["query"].removeprefix("label_values(").rpartition(",")[0]
