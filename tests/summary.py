#!/usr/bin/env python3
"""Sums up what `meson test` logged in the given build folders.

Programs that hold many tests (criterion's, and those that print "N passed, N failed, N skipped") are
counted by what they hold, others as one. The last line is "N passed, N failed, N skipped"; the exit
status is 1 where anything failed or nothing ran.

usage: tests/summary.py BUILD_DIR...
"""
import json
import pathlib
import re
import sys

SKIPPED = {"SKIP"}
PASSED = {"OK", "EXPECTEDFAIL"}

CRITERION = re.compile(r"Synthesis: Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+)")
PLAIN = re.compile(r"^(?:\w+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.MULTILINE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def inner_counts(text):
    """(passed, failed, skipped) as the program itself says, or None."""
    text = COLOUR.sub("", text)
    criterion = CRITERION.findall(text)
    if criterion:
        tested, passing = (sum(int(row[i]) for row in criterion) for i in (0, 1))
        return passing, tested - passing, 0
    plain = PLAIN.findall(text)
    if plain:
        return tuple(int(n or 0) for n in plain[-1])
    return None


def counts(entry):
    """(passed, failed, skipped) of one line of meson's log."""
    result = entry["result"]
    if result in SKIPPED:
        return 0, 0, 1
    inner = inner_counts((entry.get("stdout") or "") + "\n" + (entry.get("stderr") or ""))
    if result in PASSED:
        if not inner or sum(inner) == 0:
            return 1, 0, 0
        # A program that exits 0 over failures of its own is one that cannot be trusted: they count.
        return inner
    passed, failed, skipped = inner or (0, 0, 0)
    return passed, max(failed, 1), skipped


def main(folders):
    total = [0, 0, 0]
    failures = []
    for folder in folders:
        log = pathlib.Path(folder) / "meson-logs" / "testlog.json"
        if not log.exists():
            failures.append(f"{folder}: no test ran")
            total[1] += 1
            continue
        here = [0, 0, 0]
        seconds = 0.0
        for line in log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            one = counts(entry)
            here = [a + b for a, b in zip(here, one)]
            seconds += entry.get("duration") or 0.0
            if one[1]:
                failures.append(f"{folder}: {entry['name']} ({entry['result']})")
        print(f"{folder}: {here[0]} passed, {here[1]} failed, {here[2]} skipped in {seconds:.0f} s of tests")
        total = [a + b for a, b in zip(total, here)]
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped", flush=True)
    return 1 if total[1] or not total[0] else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
