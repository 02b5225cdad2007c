#!/usr/bin/env python3
"""Checks the directions of includes: which folder may include which, and where a library's headers may be used. HACKING.md
describes the same rules.

usage: includes.py [ROOT]
"""
import re

import sources

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(["<])([^">]+)[">]', re.MULTILINE)

# Longest matching folder first. A folder may always include its own files and those below it.
MAY_USE = {
    "core/base": (),
    "kernels/ref": ("core/base", "kernels/backend.h", "kernels/kernels.h"),
    "kernels/cpu": ("core/base", "kernels/backend.h", "kernels/kernels.h"),
    "kernels/cuda": ("core/base", "kernels/backend.h", "kernels/cuda_load.h", "kernels/kernels.h",
                     "tests/emulated/cuda_emulated.hpp", "tests/emulated/hopper_emulated.hpp"),
    "kernels/dry": ("core/base", "kernels/backend.h", "kernels/kernels.h"),
    "kernels": ("core/base",),
    "core": ("core/base", "kernels/kernels.h"),
    "config": ("core", "kernels/kernels.h"),
    "cli": ("config", "core", "kernels/kernels.h", "kernels/profile.h"),
    "server": ("config", "core", "kernels/kernels.h"),
    "tests": ("cli", "config", "core", "kernels", "server", "tests"),
}

# Headers of libraries that only some places may include. Headers that are not listed are free. A place is a folder, or a
# file without its suffix.
LIBRARIES = {
    r"microhttpd\.h": ("server", "tests/e2e"),
    r"uv\.h|uv/.*": ("server", "tests/e2e"),
    r"sqlite3\.h": ("server/store_sql", "tests/unit/test_store"),
    r"gnutls/.*": ("server/http_server", "server/tls", "tests/unit/test_tls"),
    r"curl/.*": ("cli/endpoint", "cli/fetch", "cli/load_client"),
    r"jansson\.h": ("cli", "config", "core", "server", "tests"),
    r"png\.h": ("core/png", "tests"),
    r"utf8proc\.h": ("core/tokenizer", "core/tokenizer_text"),
    r"oneapi/dnnl/.*": ("kernels/cpu", "tests/bench"),
    r"openssl/.*": ("config/api_key",),
    r"omp\.h": ("kernels/cpu", "kernels/ref", "tests/bench"),
    r"cuda.*|cublas.*|cudnn.*": ("kernels/cuda", "tests/emulated"),
    r"criterion/.*": ("tests",),
}
# Exceptions: places within the above that may not use the header after all.
NOT_IN = {r"jansson\.h": ("core/base",)}


def within(path, place):
    """Whether `path` (a/b/c.h) is `place`, is below it, or is `place` with a suffix."""
    return path == place or path.startswith(place + "/") or path.rsplit(".", 1)[0] == place


def folder_of(path):
    """The entry of MAY_USE that applies to `path`."""
    return max((f for f in MAY_USE if within(path, f)), key=len)


def check(root):
    problems = []
    for relative in sources.c_files(root):
        path = relative.as_posix()
        text = (root / relative).read_text(encoding="utf-8")
        folder = folder_of(path)
        for match in INCLUDE.finditer(text):
            where = f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
            name = match.group(2)
            if match.group(1) == '"':
                if path.startswith("tests/") and (root / relative.parent / name).is_file():
                    continue  # a test may name its own folder's header without the folder
                if not (root / name).is_file():
                    problems.append(f'{where}: "{name}" is not a path from the root of the tree')
                elif not any(within(name, f) for f in (folder, *MAY_USE[folder])):
                    problems.append(f"{where}: {folder}/ may not use {name}")
            for pattern, places in LIBRARIES.items():
                if re.fullmatch(pattern, name) and (
                    not any(within(path, place) for place in places)
                    or any(within(path, place) for place in NOT_IN.get(pattern, ()))
                ):
                    problems.append(f"{where}: <{name}> belongs to {', '.join(places)} only")
    return problems


if __name__ == "__main__":
    sources.run(check, "include directions")
