#!/usr/bin/env python3
"""Runs promtool: it checks the configuration and the rules in deploy/prometheus, and runs the rules' unit tests in rules/. Skipped
(77) without promtool."""
import subprocess
import sys

from prometheus import DEPLOY, ROOT, skip_without


def run(*arguments):
    print("promtool", *arguments, flush=True)
    return subprocess.run(["promtool", *arguments], check=False).returncode


def main():
    skip_without("promtool")
    tests = sorted(str(path) for path in (ROOT / "tests/deploy/rules").glob("*.yml"))
    assert tests
    sys.exit(run("check", "config", str(DEPLOY / "prometheus/prometheus.yml")) or run("test", "rules", *tests))


if __name__ == "__main__":
    main()
