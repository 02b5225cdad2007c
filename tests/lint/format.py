#!/usr/bin/env python3
"""Checks that clang-format 14 would change nothing; if it would, run `make format`. Skipped (77) if it is not installed.

usage: format.py [ROOT]
"""
import shutil
import subprocess
import sys

import sources

PROGRAM = "clang-format-14"


def check(root):
    files = [str(path) for path in sources.c_files(root)]
    if not files:
        return []
    result = subprocess.run((PROGRAM, "--dry-run", *files), cwd=root, capture_output=True, text=True,
                            check=False)
    problems = [line for line in result.stderr.splitlines() if "clang-format-violations" in line]
    if result.returncode and not problems:
        problems = [result.stderr]
    return problems


if __name__ == "__main__":
    if not shutil.which(PROGRAM):
        print(f"{PROGRAM} is not installed")
        sys.exit(77)
    sources.run(check, "format")
