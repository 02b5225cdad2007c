#!/usr/bin/env python3
"""Checks that every header has an include guard and compiles alone. Templates cannot: they are included once for each type,
with macros set. The opening comment of a template says "a template". A header is compiled as C++ if its suffix is .hpp or
.cuh, or if its opening comment says "C++".

usage: headers.py [ROOT]
"""
import concurrent.futures
import os
import shutil
import subprocess

import sources

# CUDA's headers are those of the emulated build.
FLAGS = ("-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-I.", "-isystem", "tests/emulated/fallback", "-fsyntax-only")
C = (os.environ.get("CC", "cc"), "-std=c17", *FLAGS, "-x", "c")
CPP = (os.environ.get("CXX", "c++"), "-std=c++17", *FLAGS, "-Wno-unknown-pragmas", "-x", "c++")


# The most lines of the compiler's output that a problem shows.
SHOWN = 6


def compile_alone(root, header):
    text = (root / header).read_text(encoding="utf-8")
    opening = text.split("\n#", 1)[0]
    if "a template" in opening:
        return None
    if "#ifndef ATEDM_" not in text and "#pragma once" not in text:
        return f"{header}:1: no include guard"
    is_cpp = header.suffix != ".h" or "C++" in opening
    if is_cpp and not shutil.which(CPP[0]):
        return None
    result = subprocess.run((*(CPP if is_cpp else C), "-include", str(header), "/dev/null"), cwd=root,
                            capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return None
    said = "\n".join(result.stderr.splitlines()[:SHOWN])
    return f"{header}:1: does not compile alone\n{said}"


def check(root):
    headers = sources.c_files(root, sources.HEADERS)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda header: compile_alone(root, header), headers)
    return [problem for problem in results if problem]


if __name__ == "__main__":
    sources.run(check, "headers")
