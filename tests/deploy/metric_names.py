#!/usr/bin/env python3
"""Checks that dashboard, rules and documents name only metrics that exist. These are the metrics in api.md's table, which
tests/deploy/monitoring.py compares with the live page, and those that rules record. Also checks that every query of the
dashboard parses, that every alert has a summary, a description and a runbook, and that panels neither overlap nor leave the
grid. Skipped (77) without promtool.

usage: metric_names.py
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from dashboard import expressions, other_expressions, panels

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
BOARD = ROOT / "deploy/grafana/dashboards/atedmd.json"
DOCUMENTS = [ROOT / name for name in ("README.md", "api.md", "CHANGELOG.md", "deploy/README.md")]
GRID = 24

# The form of our metrics' names; programs and folders have other names. A name with a colon is recorded by a rule.
NAME = re.compile(r"\b(?:[a-z]+:)?(?:atedm|process)_[a-z0-9_]+(?::\w+)?")
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def documented(text):
    """The names in the table of api.md's section "Metrics"."""
    section = re.search(r"^## Metrics$(.*?)^## ", text, re.MULTILINE | re.DOTALL).group(1)
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def recorded():
    return [name for path in RULES for name in re.findall(r"record: (\S+)", path.read_text())]


def unknown(text, known):
    return sorted({name for name in NAME.findall(text) if name not in known and SUFFIX.sub("", name) not in known})


def check_names(known):
    problems = []
    for path in [*RULES, BOARD, *DOCUMENTS]:
        text = path.read_text()
        if path in DOCUMENTS:
            text = " ".join(re.findall(r"`[^`\n]+`", text)) # names are in code spans
        problems += [f"{path.relative_to(ROOT)}: there is no metric {name}" for name in unknown(text, known)]
    return problems


def check_syntax(board):
    """Lets promtool check the rules, and each query of the dashboard as a rule of its own."""
    queries = [*expressions(board), *other_expressions(board)]
    rules = [{"record": f"query:{i}", "expr": expression} for i, (_, expression) in enumerate(queries)]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        file.flush()
        files = [file.name, *map(str, RULES)]
        result = subprocess.run(["promtool", "check", "rules", *files], capture_output=True, text=True, check=False)
    return [f"promtool: {result.stdout}{result.stderr}"] if result.returncode else []


def anchors(text):
    return {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in text.splitlines() if line.startswith("#")}


def check_alerts():
    problems = []
    headings = anchors((ROOT / "deploy/README.md").read_text())
    for path in RULES:
        for alert in re.split(r"^      - ", path.read_text(), flags=re.MULTILINE)[1:]:
            name = re.match(r"alert: (\w+)", alert)
            if not name:
                continue
            where = f"{path.relative_to(ROOT)}: {name.group(1)}"
            problems += [f"{where} has no {key}" for key in ("severity", "summary", "description", "runbook")
                         if not re.search(rf"^ +{key}: \S", alert, re.MULTILINE)]
            if f"runbook: deploy/README.md#{name.group(1).lower()}\n" not in alert:
                problems.append(f"{where}: its runbook is not that of its name")
            if name.group(1).lower() not in headings:
                problems.append(f"{where}: deploy/README.md has no section of that name")
    return problems


def check_layout(board):
    problems, taken, numbers = [], {}, set()
    for panel in panels(board):
        title, at = panel["title"], panel["gridPos"]
        if panel["id"] in numbers:
            problems.append(f"{title}: number {panel['id']} is there twice")
        numbers.add(panel["id"])
        if at["x"] + at["w"] > GRID:
            problems.append(f"{title}: leaves the grid")
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            if cell in taken:
                problems.append(f"{title}: overlaps {taken[cell]}")
                break
            taken[cell] = title
        if panel["type"] != "row" and not panel.get("description"):
            problems.append(f"{title}: no description")
        if panel["type"] in ("stat", "timeseries") and "unit" not in panel["fieldConfig"]["defaults"]:
            problems.append(f"{title}: no unit")
    return problems


def main():
    board = json.loads(BOARD.read_text())
    known = {*documented((ROOT / "api.md").read_text()), *recorded()}
    problems = check_names(known) + check_alerts() + check_layout(board)
    try:
        problems += check_syntax(board)
    except FileNotFoundError:
        print("promtool is not installed (deploy/install-deps.sh check)")
        if not problems:
            sys.exit(77)
    print("\n".join(problems))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
