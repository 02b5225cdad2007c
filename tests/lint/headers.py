#!/usr/bin/env python3
"""Every header has an include guard and compiles alone. Templates, which are included once a type with
macros set, cannot: their opening comment says "a template".

usage: headers.py [ROOT]
"""
import concurrent.futures
import os
import subprocess

import sources

COMMAND = (os.environ.get("CC", "cc"), "-std=c17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror",
           "-I.", "-fsyntax-only", "-x", "c")


# Lines of the compiler's complaints that are shown.
SHOWN = 6


def compile_alone(root, header):
    text = (root / header).read_text(encoding="utf-8")
    opening = text.split("\n#", 1)[0]
    if "a template" in opening:
        return None
    if "#ifndef ATEDM_" not in text and "#pragma once" not in text:
        return f"{header}:1: no include guard"
    result = subprocess.run((*COMMAND, "-include", str(header), "/dev/null"), cwd=root,
                            capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return None
    said = "\n".join(result.stderr.splitlines()[:SHOWN])
    return f"{header}:1: does not compile alone\n{said}"


def check(root):
    headers = sources.c_files(root, (".h",))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda header: compile_alone(root, header), headers)
    return [problem for problem in results if problem]


if __name__ == "__main__":
    sources.run(check, "headers")
