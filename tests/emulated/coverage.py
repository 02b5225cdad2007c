#!/usr/bin/env python3
"""Which lines of kernels/cuda the tests on the emulated backend execute: `make coverage-cuda`. Prints a table by file, with the
lines that no test reached, and fails if the share of kernels or of host code is below the minimum.

The backend's sources are compiled once more, for gcov; the programs are those of the build folder.

usage: coverage.py BUILD_DIR [--least PERCENT] [--keep FOLDER]
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from mutate import C, CPP, HOPPER, ROOT, SOURCES, definitions

LEAST = 95
# -O1, because the emulation's fibers are slow enough. Threads share the counters.
FLAGS = ("-O1", "--coverage", "-fprofile-update=prefer-atomic")
# Cases for each operation: kernels for rare shapes need many. Both 16-bit types execute the same lines, so one type is enough.
ITERATIONS = {"f32": 4, "bf16": 15, "f16": 4}
KERNELS = (".cu", ".cuh")


def compile_all(folder, build):
    """The backend with counters, as a shared object in `folder`."""
    defined = definitions(build)

    def compile_one(source):
        target = folder / (source.name + ".o")
        command = (*C, *defined) if source.suffix == ".c" else CPP
        subprocess.run((*command, *FLAGS, str(source), "-o", str(target)), check=True)
        return str(target)

    sources = sorted((*SOURCES.glob("*.cu"), *SOURCES.glob("*.c"), ROOT / "kernels/stream_fail.c"))
    sources.remove(SOURCES / "dnn_missing.c")  # replaces dnn.c if there are no headers of cuDNN
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    shared = folder / "atedm-cuda-emulated.so"
    subprocess.run(("c++", "-shared", "--coverage", "-o", str(shared), *objects, str(build / "tests/emulated/libcuda_emulated.a"),
                    str(build / "core/base/libbase.a"), "-lpthread", "-lm"), check=True)
    return shared


def commands_of(build):
    """What CI runs on the emulated backend, except for whole requests: commands, each with the choice of kernels."""
    emulated = build / "tests/emulated"
    parity = (build / "tests/parity/parity", "--backend", "cuda", "--required")
    for dtype, iterations in ITERATIONS.items():
        yield (*parity, "--dtype", dtype, "--iterations", iterations), "own"
    yield (*parity, "--dtype", "bf16", "--op", "conv", "--iterations", ITERATIONS["bf16"]), "cudnn"
    for op in ("attention", "rank_tokens", "conv", "linear"):
        yield (*parity, "--op", op, "--dtype", "bf16", "--iterations", ITERATIONS["bf16"]), "hopper"
        yield (*parity, "--op", op, "--dtype", "f16", "--large", "--iterations", 6), "hopper"
    yield (build / "tests/golden/stages", "--data", ROOT / "tests/golden/data", "--backend", "cuda"), "own"
    yield (emulated / "test_cuda",), "own"
    yield (emulated / "test_linear",), "own"
    yield (emulated / "test_devices",), "own"
    yield (emulated / "test_steps", "--filter", "staging/*"), "own"
    yield (emulated / "test_dnn",), "auto"
    yield (emulated / "test_graphs",), "own"
    yield (emulated / "test_aside", "--filter", "aside/*"), "own"


def run_tests(build, shared):
    """Whether all of it passed."""
    common = {**os.environ, "ATEDM_CUDA_BACKEND": str(shared), "ATEDM_CUDNN": str(build / "tests/emulated/cudnn-emulated.so"),
              "ATEDM_GOLDEN_DIR": str(ROOT / "tests/golden/data"), "LD_LIBRARY_PATH": str(build / "tests/emulated")}

    def run_one(one):
        chosen = HOPPER if one[1] == "hopper" else {"ATEDM_CUDA_CONV": one[1]}
        return subprocess.run(list(map(str, one[0])), env={**common, **chosen}, capture_output=True, text=True, check=False)

    good, commands = True, list(commands_of(build))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (command, _), done in zip(commands, pool.map(run_one, commands)):
            if done.returncode:
                print(f"FAIL {' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
                good = False
    return good


def add_counts(lines, document):
    """Adds gcov's counts of one object to {file: {line: count}}. gcov reports a template's line once for each instance."""
    for file in document["files"]:
        path = pathlib.Path(file["file"])
        if not path.is_relative_to(SOURCES):
            continue
        counts = lines.setdefault(path.name, {})
        for line in file["lines"]:
            number = line["line_number"]
            counts[number] = counts.get(number, 0) + line["count"]


def count_lines(folder):
    lines = {}
    for data in sorted(folder.glob("*.gcda")):
        done = subprocess.run(("gcov", "--json-format", "--stdout", str(data)), cwd=folder, capture_output=True, text=True,
                              check=True)
        for document in done.stdout.splitlines():
            add_counts(lines, json.loads(document))
    return lines


def ranges(numbers):
    """[1, 2, 3, 7] as "1-3 7"."""
    out = []
    for number in numbers:
        if out and number == out[-1][1] + 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in out)


def share(counts):
    """Percent of the lines that were reached."""
    reached = sum(count > 0 for one in counts for count in one.values())
    return 100 * reached / max(1, sum(len(one) for one in counts))


def report(lines):
    """Prints the table; returns the shares of kernels and host code."""
    print(f"{'file':22} lines  reached  not reached")
    for name in sorted(lines):
        missed = sorted(number for number, count in lines[name].items() if not count)
        print(f"{name:22} {len(lines[name]):5} {share([lines[name]]):7.1f}%  {ranges(missed)}")
    shares = {}
    for kind, suffixes in (("kernels", KERNELS), ("host code", (".c", ".h"))):
        shares[kind] = share([counts for name, counts in lines.items() if name.endswith(suffixes)])
        print(f"{kind}: {shares[kind]:.1f} %")
    return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--least", type=float, default=LEAST, help="percent; default 95")
    parser.add_argument("--keep", type=lambda text: pathlib.Path(text).resolve(), help="a folder for objects and counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.gc*"):
            old.unlink()
        good = run_tests(options.build, compile_all(folder, options.build))
        shares = report(count_lines(folder))
    low = [kind for kind, percent in shares.items() if not percent >= options.least]
    for kind in low:
        print(f"FAIL {kind}: under {options.least:g} %")
    return 0 if good and not low else 1


if __name__ == "__main__":
    sys.exit(main())
