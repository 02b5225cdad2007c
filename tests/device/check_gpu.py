#!/usr/bin/env python3
"""The tests that need a GPU: `make check-gpu`. Skipped (77) if none answers.

Builds with the cuda backend, then: parity in each dtype, also at SDXL's sizes; the goldens; pictures that do not depend on
the batch, over HTTP; compute-sanitizer over parity, if it is installed; two minutes of steady load with faults. A step that
fails does not keep the others from running. The results go to bench/results as JSON.
"""
import os
import pathlib
import shutil
import sys

import device

PYTHON = sys.executable
E2E = device.ROOT / "tests" / "e2e"
DTYPES = ("f32", "bf16", "f16")
# Own convolutions: we need not test the libraries' kernels.
OWN_CONV = {"ATEDM_CUDA_CONV": "own"}
# Operations with a kernel for compute capability 9.0 ("hopper"), and those that also have one for all devices ("portable").
# In "tried", trials decide between these and the library's. All other steps test convolutions without the Hopper kernel, and
# linear layers by cuBLASLt.
WAYS = {"portable": ({"ATEDM_CUDA_ATTENTION": "portable"}, ("attention", "rank_tokens")),
        "tried": ({"ATEDM_CUDA_LINEAR": "tried"}, ("linear",)),
        "hopper": ({"ATEDM_CUDA_ATTENTION": "hopper", "ATEDM_CUDA_CONV": "hopper", "ATEDM_CUDA_LINEAR": "hopper"},
                   ("attention", "rank_tokens", "conv", "linear"))}
# Under the sanitizers conv.cu, not cuDNN, computes the convolutions that the Hopper kernel does not take.
NO_LIBRARY = {"ATEDM_CUDNN": "none"}
# Everything runs in order: no second queue, no graphs.
IN_ORDER = {"ATEDM_CUDA_ASIDE": "0", "ATEDM_CUDA_GRAPHS": "0"}
# The variables for choosing a device's kernels that daemons get.
KEPT = ("ATEDM_CUDA_ASIDE", "ATEDM_CUDA_ATTENTION", "ATEDM_CUDA_BACKEND", "ATEDM_CUDA_CONV", "ATEDM_CUDA_GRAPHS", "ATEDM_CUDA_LINEAR",
        "ATEDM_CUDNN", "ATEDM_EMULATED_SM")
# Steps that run last, with the machine to themselves.
ALONE = ("soak",)
# Cases for each operation under the sanitizers, which are some hundred times slower.
SANITIZED_ITERATIONS = 3
SANITIZERS = {"memcheck": ("--report-api-errors", "no"), "racecheck": (), "initcheck": (), "synccheck": ()}
# compute-sanitizer does not support every machine that CUDA runs on.
NO_SANITIZER = ("Device not supported",)


def find_sanitizer():
    return shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")


def parity_steps(options):
    parity = (options.build / "tests/parity/parity", "--backend", "cuda", "--required")
    for dtype in DTYPES:
        yield f"parity {dtype}", (*parity, "--dtype", dtype, "--iterations", options.iterations), 1800, {}
    for dtype in DTYPES:
        yield f"full size {dtype}", (*parity, "--dtype", dtype, "--full-size"), 3600, {}
    # conv.cu also for the shapes that cuDNN would compute.
    for dtype in DTYPES[1:]:
        conv = (*parity, "--dtype", dtype, "--op", "conv")
        yield f"own convolutions {dtype}", (*conv, "--iterations", options.iterations), 1800, OWN_CONV
        yield f"own convolutions full size {dtype}", (*conv, "--full-size"), 1800, OWN_CONV


def golden_steps(options):
    for program in ("stages", "golden"):
        yield program, (options.build / "tests/golden" / program, "--data", device.ROOT / "tests/golden/data", "--backend",
                        "cuda"), 1800, {}


def server_steps(options):
    """Tests over HTTP, from tests/e2e, on this backend."""
    demo = str(device.ROOT / "models/demo")
    crowd = (PYTHON, E2E / "api_batching.py", "Batching.test_pictures_do_not_depend_on_the_crowd")
    for dtype in ("f32", "bf16"):
        yield f"invariance {dtype}", crowd, 1800, {"ATEDM_TEST_BACKENDS": f"cuda:{dtype}"}
    for name, more in {"invariance demo bf16": {}, "invariance demo bf16 in order": IN_ORDER}.items():
        yield name, crowd, 1800, {"ATEDM_TEST_BACKENDS": "cuda:bf16", "ATEDM_TEST_MODEL": demo, **more}
    yield "soak", (PYTHON, E2E / "soak.py", options.soak), 3 * options.soak + 300, {"ATEDM_TEST_BACKEND": "cuda"}


def sanitizer_steps(options):
    sanitizer = find_sanitizer()
    for tool, more in SANITIZERS.items():
        for dtype in ("bf16", "f32"):
            command = (sanitizer, "--tool", tool, "--error-exitcode", 9, *more, options.build / "tests/parity/parity",
                       "--backend", "cuda", "--required", "--dtype", dtype, "--iterations", SANITIZED_ITERATIONS)
            yield f"{tool} {dtype}", command if sanitizer else None, 3600, OWN_CONV


def way_steps(options, way, environment, ops):
    """Tests the operations in one of the WAYS."""
    def parity(op, *more):
        return options.build / "tests/parity/parity", "--backend", "cuda", "--op", op, *more
    for op in ops:
        for dtype in DTYPES[1:]:
            of, count = ("--dtype", dtype), ("--iterations", options.iterations)
            yield f"{way} {op} {dtype}", parity(op, *of, *count), 1800, environment
            yield f"{way} {op} large {dtype}", parity(op, *of, "--large", *count), 3600, environment
            yield f"{way} {op} full size {dtype}", parity(op, *of, "--full-size"), 1800, environment
    crowd = (PYTHON, E2E / "api_batching.py", "Batching.test_pictures_do_not_depend_on_the_crowd")
    yield f"{way} invariance", crowd, 1800, {**environment, "ATEDM_TEST_BACKENDS": "cuda:bf16",
                                             "ATEDM_TEST_MODEL": str(device.ROOT / "models/demo")}
    sanitizer = find_sanitizer()
    for tool, more in SANITIZERS.items():
        for op in ops:
            command = (sanitizer, "--tool", tool, "--error-exitcode", 9, *more,
                       *parity(op, "--dtype", "bf16", "--large", "--iterations", SANITIZED_ITERATIONS))
            yield f"{way} {op} {tool}", command if sanitizer else None, 3600, {**environment, **NO_LIBRARY}


def all_steps(options):
    for part in (parity_steps, golden_steps, server_steps, sanitizer_steps):
        yield from part(options)
    for way, (environment, ops) in WAYS.items():
        yield from way_steps(options, way, environment, ops)


def parse():
    parser = device.parser(__doc__)
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="steps whose names have one of these in them")
    parser.add_argument("--iterations", type=int, default=100, help="of parity, cases an operation; default 100")
    parser.add_argument("--jobs", type=int, default=1, help="steps at a time, but for the soak; default 1")
    parser.add_argument("--soak", type=float, default=120, help="seconds; default 120")
    parser.add_argument("--limits", type=float, default=1, help="a factor of all time limits")
    parser.add_argument("--emulated", action="store_true", help="on the emulated backend of the build folder")
    parser.add_argument("--list", action="store_true", help="names of the steps")
    parser.add_argument("-o", "--output", type=pathlib.Path, help="default bench/results/DATE-check-DEVICE.json")
    return parser.parse_args()


def environment(options):
    return {**device.environment(options.build, options.emulated), "ATEDMD": str(options.build / "server/atedmd"),
            "ATEDM": str(options.build / "cli/atedm"), "ATEDM_TEST_MODEL": str(device.test_model(options.build, options.emulated)),
            "ATEDM_TEST_KEEP": " ".join(KEPT), "PYTHONDONTWRITEBYTECODE": "1"}


def run_steps(options, found, steps):
    def run(step):
        name, command, limit_s, more = step
        if name.startswith("hopper") and not device.may_be_hopper(found):
            steps.skip(name, f"the device is not of compute capability {device.HOPPER}")
        elif command:
            steps.run(name, command, limit_s, {**environment(options), **more}, skip_lines=NO_SANITIZER)
        else:
            steps.skip(name, "compute-sanitizer is not here")

    chosen = [step for step in all_steps(options) if not options.only or any(text in step[0] for text in options.only)]
    steps.side_by_side(run, [step for step in chosen if step[0] not in ALONE], options.jobs)
    for step in chosen:
        if step[0] in ALONE:
            run(step)


def main():
    options = parse()
    if options.list:
        print("\n".join(name for name, *_ in all_steps(options)))
        return 0
    device.interrupt_when_terminated()
    found = device.device_or_exit(options.emulated, "the device suite")
    output = options.output or device.result_path(found, "check", ".json")
    heading = device.heading(found, "tests/device/check_gpu.py")
    steps = device.Steps(options.limits, lambda: device.write_json(output, {**heading, "steps": steps.results}))
    if options.no_build or device.build_steps(steps, options.build):
        run_steps(options, found, steps)
    if not steps.results:
        sys.exit("check_gpu.py: no step is called so; --list names them")
    steps.save()  # in the steps' order
    print(f"\n{found['name']}\n{steps.table()}\nwritten: {os.path.relpath(output)}")
    return 0 if steps.all_good() else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(main())
