#!/usr/bin/env python3
"""Every header compiles alone.

usage: headers.py [ROOT]
"""
import concurrent.futures
import os
import subprocess

import sources

COMMAND = (os.environ.get("CC", "cc"), "-std=c17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror",
           "-I.", "-fsyntax-only", "-x", "c")


def compile_alone(root, header):
    result = subprocess.run((*COMMAND, "-include", str(header), "/dev/null"), cwd=root,
                            capture_output=True, text=True, check=False)
    return f"{header}:1: does not compile alone\n{result.stderr}" if result.returncode else None


def check(root):
    headers = sources.c_files(root, (".h",))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda header: compile_alone(root, header), headers)
    return [problem for problem in results if problem]


if __name__ == "__main__":
    sources.run(check, "headers")
