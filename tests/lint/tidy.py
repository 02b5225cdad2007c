#!/usr/bin/env python3
"""clang-tidy 14 over every file that the build folder compiles, as many at once as there are cores.
What it checks stands in .clang-tidy. Skipped (77) where it is not installed.

usage: tidy.py BUILD_DIR [FILE...]     (FILE: only these, paths from the root of the tree)
"""
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys

import sources

PROGRAM = "clang-tidy-14"
# The compile commands are gcc's: warnings that clang does not know are none of its business.
EXTRA = ("--extra-arg=-Wno-unknown-warning-option", "--extra-arg=-Wno-unused-command-line-argument")


def compiled_files(build_dir):
    """The C files of compile_commands.json, each once, largest first."""
    entries = json.loads((build_dir / "compile_commands.json").read_text(encoding="utf-8"))
    files = {(pathlib.Path(e["directory"]) / e["file"]).resolve() for e in entries}
    return sorted((f for f in files if f.suffix == ".c"), key=lambda f: -f.stat().st_size)


def tidy(build_dir, path):
    result = subprocess.run((PROGRAM, "--quiet", "-p", str(build_dir), *EXTRA, str(path)),
                            cwd=sources.ROOT, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return None
    return result.stdout + "\n".join(
        line for line in result.stderr.splitlines() if not line.endswith(("generated.", "errors"))
    )


def main(build_dir, only):
    files = compiled_files(build_dir)
    if only:
        wanted = {(sources.ROOT / name).resolve() for name in only}
        files = [path for path in files if path in wanted]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = [p for p in pool.map(lambda path: tidy(build_dir, path), files) if p]
    return sources.report(problems, f"clang-tidy, {len(files)} files")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if not shutil.which(PROGRAM):
        print(f"{PROGRAM} is not installed")
        sys.exit(77)
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]))
