#!/usr/bin/env python3
"""Checks that the code calls no banned function, and says what to use instead. Also checks that library code neither
prints nor exits. Tests may use everything: they only read data that they wrote themselves.

usage: banned.py [ROOT]
"""
import re

import sources

EVERYWHERE = {
    "strcpy": "snprintf or memcpy with the size",
    "strcat": "atedm_buffer or snprintf",
    "strncpy": "snprintf (strncpy may leave out the terminator)",
    "strncat": "snprintf",
    "sprintf": "snprintf",
    "vsprintf": "vsnprintf",
    "gets": "fgets",
    "scanf": "strtol and friends",
    "fscanf": "strtol and friends",
    "sscanf": "strtol and friends, jansson",
    "atoi": "strtol, which reports errors",
    "atol": "strtol",
    "atoll": "strtoll",
    "atof": "strtod",
    "strtok": "strtok_r",
    "alloca": "a bounded array or malloc",
    "rand": "core/rng.h",
    "srand": "core/rng.h",
    "random": "core/rng.h",
    "tmpnam": "mkstemp",
    "tempnam": "mkstemp",
    "mktemp": "mkstemp",
    "localtime": "localtime_r",
    "gmtime": "gmtime_r",
    "ctime": "strftime",
    "asctime": "strftime",
    "setjmp": None,
    "longjmp": None,
    "system": "posix_spawn",
}
# libpng reports errors through setjmp and longjmp, and offers no other way.
EXCEPT = {("setjmp", "core/png.c"), ("longjmp", "core/png.c")}

LIBRARY = ("core/", "kernels/", "config/")
IN_LIBRARIES = {
    **{name: "return a status; the caller prints" for name in ("printf", "puts", "putchar", "perror")},
    **{name: "return a status" for name in ("exit", "_exit", "abort", "err", "errx")},
    "signal": "only programs handle signals",
    "setlocale": "only programs choose a locale",
}

CALL = re.compile(r"(?<![\w.>])(\w+)\s*\(")


def check(root):
    problems = []
    for relative in sources.c_files(root):
        path = relative.as_posix()
        if path.startswith("tests/"):
            continue
        code = sources.bare_code((root / relative).read_text(encoding="utf-8"))
        banned = dict(EVERYWHERE)
        if path.startswith(LIBRARY):
            banned.update(IN_LIBRARIES)
        for match in CALL.finditer(code):
            name = match.group(1)
            if name not in banned or (name, path) in EXCEPT:
                continue
            line = code.count("\n", 0, match.start()) + 1
            instead = f"; use {banned[name]}" if banned[name] else ""
            problems.append(f"{path}:{line}: {name}() is banned{instead}")
        if path.startswith(LIBRARY):
            for match in re.finditer(r"\b(stderr|stdout)\b", code):
                line = code.count("\n", 0, match.start()) + 1
                problems.append(f"{path}:{line}: library code does not print ({match.group(1)})")
    return problems


if __name__ == "__main__":
    sources.run(check, "banned functions")
