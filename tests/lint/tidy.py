#!/usr/bin/env python3
"""Runs clang-tidy 14 over every C file that the build folder compiles, one at a time on each core. .clang-tidy lists the checks.
Skipped (77) if it is not installed.

usage: tidy.py BUILD_DIR [--deep] [FILE...]     (FILE: only these, paths from the root of the tree)

The analyzer follows at most NODES states of a function; with --deep as many as clang allows, which takes three times as long.
"""
import concurrent.futures
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

import sources

PROGRAM = "clang-tidy-14"
# The compile commands are made for gcc: clang ignores options for warnings that it does not know.
EXTRA = ("--extra-arg=-Wno-unknown-warning-option", "--extra-arg=-Wno-unused-command-line-argument")
NODES = 40000  # clang's own limit is 225000
LIMIT = tuple(f"--extra-arg={word}" for word in ("-Xclang", "-analyzer-config", "-Xclang", f"max-nodes={NODES}"))
CRITERION = "--extra-arg-before=-include" + str(sources.ROOT / "tests/lint/analyzed_criterion.h")


def path_of(entry):
    return (pathlib.Path(entry["directory"]) / entry["file"]).resolve()


def shapes(command):
    """The words of a compile command that change the preprocessed text of a file: our definitions, instruction sets, forced
    headers."""
    words = shlex.split(command)
    return tuple(word for i, word in enumerate(words) if word.startswith(("-DATEDM_", "-m")) or "-include" in words[max(0, i - 1):i + 1])


def commands(build_dir):
    """The entries of compile_commands.json for C, by file, the largest file first. clang-tidy checks a file once for each entry,
    so of the entries that compile a file alike (for several programs) only one is kept."""
    files = {}
    for entry in json.loads((build_dir / "compile_commands.json").read_text(encoding="utf-8")):
        if path_of(entry).suffix == ".c":
            files.setdefault(path_of(entry), {}).setdefault(shapes(entry["command"]), entry)
    return {path: list(files[path].values()) for path in sorted(files, key=lambda path: -path.stat().st_size)}


def tidy(database, path, limit=LIMIT):
    extra = EXTRA + limit + ((CRITERION,) if "<criterion/" in path.read_text(encoding="utf-8") else ())
    result = subprocess.run((PROGRAM, "--quiet", "-p", database, *extra, str(path)),
                            cwd=sources.ROOT, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return None
    return result.stdout + "\n".join(
        line for line in result.stderr.splitlines() if not line.endswith(("generated.", "errors"))
    )


def main(build_dir, only, limit):
    files = commands(build_dir)
    if only:
        wanted = {(sources.ROOT / name).resolve() for name in only}
        files = {path: entries for path, entries in files.items() if path in wanted}
    with tempfile.TemporaryDirectory() as database, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        (pathlib.Path(database) / "compile_commands.json").write_text(json.dumps(sum(files.values(), [])), encoding="utf-8")
        problems = [p for p in pool.map(lambda path: tidy(database, path, limit), files) if p]
    return sources.report(problems, f"clang-tidy, {len(files)} files")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if not shutil.which(PROGRAM):
        print(f"{PROGRAM} is not installed")
        sys.exit(77)
    words = [word for word in sys.argv[2:] if word != "--deep"]
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), words, () if "--deep" in sys.argv else LIMIT))
