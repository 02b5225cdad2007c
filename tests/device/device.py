"""Shared by the device suite and its benchmarks: finding the GPU, running steps with time limits, writing results.

No test library, because both run on machines with nothing but Python.
"""
import argparse
import concurrent.futures
import ctypes
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77  # Meson's exit status for skipped tests
TAIL_LINES = 30  # the last lines of a failed step's output that are shown ...
FAILURES = re.compile("FAIL|replay")  # ... and earlier lines that match this, which are shown too
MOST_FAILURES = 20
LIBRARIES = "lib"  # folder in an archive of pack.py
TIMELINE = "tests/device/atedm-timeline.so"  # in a build folder

# Attributes of cuDeviceGetAttribute (cuda.h).
MAJOR, MINOR = 75, 76


HOPPER = "9.0"  # compute capability


class NoDevice(Exception):
    """There is no usable GPU; the message says why."""


def driver_version():
    """The kernel driver's version according to nvidia-smi; None without nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return None
    result = subprocess.run(("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"), capture_output=True,
                            text=True, check=False, timeout=60)
    return result.stdout.split("\n")[0].strip() or None


def find_device():
    """The first visible GPU, which programs will use. Raises NoDevice if there is none. Takes no GPU memory."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise NoDevice("there is no NVIDIA driver here (libcuda.so.1)") from None
    status, count = cuda.cuInit(0), ctypes.c_int(0)
    if status:
        raise NoDevice(f"no device answers (cuInit says {status})")
    cuda.cuDeviceGetCount(ctypes.byref(count))
    if count.value < 1:
        raise NoDevice("no device is visible")
    device, name, memory = ctypes.c_int(0), ctypes.create_string_buffer(256), ctypes.c_size_t(0)
    major, minor, version = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    cuda.cuDeviceGet(ctypes.byref(device), 0)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    return {"name": name.value.decode(), "compute_capability": f"{major.value}.{minor.value}",
            "memory_bytes": memory.value, "driver": driver_version(),
            "cuda": f"{version.value // 1000}.{version.value % 1000 // 10}"}


def emulated_device():
    return {"name": "emulated", "compute_capability": None, "memory_bytes": None, "driver": None, "cuda": None}


def may_be_hopper(found):
    """Whether the device may be a Hopper. The emulated one may: the environment sets that for the programs."""
    return found["compute_capability"] in (HOPPER, None)


def device_or_exit(is_emulated, what):
    try:
        return emulated_device() if is_emulated else find_device()
    except NoDevice as reason:
        print(f"skipped: {what} needs an NVIDIA GPU: {reason}")
        sys.exit(SKIPPED)


def backend_file(build, is_emulated):
    """The file that ATEDM_CUDA_BACKEND has to name."""
    return build / ("tests/emulated/atedm-cuda-emulated.so" if is_emulated else "kernels/cuda/atedm-cuda.so")


def test_model(build, is_emulated):
    """The model whose requests the tests over HTTP send, where a step names no other."""
    return build / "tests/e2e" / ("emulated-model" if is_emulated else "tiny-model")


def parser(text):
    """The parser of both programs, with the options for the build folder."""
    options = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--build", type=lambda path: pathlib.Path(path).resolve(), default=ROOT / "build-gpu",
                         help="default build-gpu")
    options.add_argument("--no-build", action="store_true", help="what stands in the build folder is taken as it is")
    return options


def linker_environment(build):
    """The environment for programs of an unpacked archive (pack.py), which contains their libraries."""
    libraries = build / LIBRARIES
    if not libraries.is_dir():
        return {}
    return {"LD_LIBRARY_PATH": ":".join(filter(None, (str(libraries), os.environ.get("LD_LIBRARY_PATH"))))}


def environment(build, is_emulated):
    """The environment for programs of the build folder that use the cuda backend."""
    return {"ATEDM_CUDA_BACKEND": str(backend_file(build, is_emulated)), "OMP_WAIT_POLICY": "passive", **linker_environment(build)}


def commit():
    """The commit in ATEDM_COMMIT, for a machine that has the files without .git; else this checkout's."""
    if "ATEDM_COMMIT" in os.environ or not shutil.which("git"):
        return os.environ.get("ATEDM_COMMIT")
    result = subprocess.run(("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"), capture_output=True,
                            text=True, check=False)
    return result.stdout.strip() or None


# ---- steps


def without_folders(path):
    """A file's name for results: relative to the project's root, else without folders. Other text stays unchanged."""
    if path.startswith(str(ROOT) + "/"):
        return os.path.relpath(path, ROOT)
    return os.path.basename(path) if path.startswith("/") else path


class Steps:
    """Runs programs one after the other, each with a time limit, and keeps their results. `save`, which is called after each
    step, can write them: the machine may be gone before the last one."""

    def __init__(self, limit_scale=1, save=None):
        self.limit_scale = limit_scale
        self.results = []
        self.running = set()
        self.save = save
        self.saving = threading.Lock()

    def side_by_side(self, run, steps, jobs):
        """run(step) for each step, several at a time. Results are in the steps' order."""
        first = len(self.results)
        with concurrent.futures.ThreadPoolExecutor(max(jobs, 1)) as pool:
            try:
                for done in [pool.submit(run, step) for step in steps]:
                    done.result()
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.running):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        order = {step[0]: i for i, step in enumerate(steps)}
        self.results[first:] = sorted(self.results[first:], key=lambda result: order[result["name"]])

    def run(self, name, command, limit_s, environment=None, cwd=ROOT, skip_lines=()):
        """Runs one step and returns its standard output. Status 77 means "skipped"; so does a failure with one of `skip_lines`."""
        command = [str(part) for part in command]
        print(f"== {name}", flush=True)
        start, limit_s = time.monotonic(), limit_s * self.limit_scale
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            try:
                process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=errors, text=True, start_new_session=True,
                                           env={**os.environ, **(environment or {})})
            except OSError as error:
                return self.note(name, command, "failed", start, str(error), "")
            self.running.add(process)
            try:
                status = process.wait(limit_s)
            except (subprocess.TimeoutExpired, KeyboardInterrupt) as why:
                os.killpg(process.pid, signal.SIGKILL)  # kills its children too, which Ctrl-C does not reach
                process.wait()
                if isinstance(why, KeyboardInterrupt):
                    raise
                status = None
            finally:
                self.running.discard(process)
            out.seek(0)
            errors.seek(0)
            text, said = out.read(), errors.read()
        result = "passed" if status == 0 else "skipped" if status == SKIPPED else "failed"
        if result == "failed" and any(line in text + said for line in skip_lines):
            result = "skipped"
        if status is None:
            result, said = "timed out", said + f"\nnot within {limit_s:g} s"
        return self.note(name, command, result, start, said, text)

    def skip(self, name, why):
        print(f"== {name}", flush=True)
        self.note(name, [], "skipped", time.monotonic(), why, "")

    def note(self, name, command, result, start, said, text):
        seconds = time.monotonic() - start
        shown = [without_folders(part) for part in command]
        lines = (text + "\n" + said).replace(f"{ROOT}/", "").strip().splitlines()
        self.results.append({"name": name, "result": result, "seconds": round(seconds, 3), "command": " ".join(shown),
                             "last_line": lines[-1] if lines else ""})
        if result != "passed":
            failures = [line for line in lines if FAILURES.search(line)][:MOST_FAILURES]
            self.results[-1]["failures"] = failures
            print("\n".join(failures + lines[-TAIL_LINES:]), flush=True)
        if self.save:
            with self.saving:
                self.save()
        return text

    def passed(self, name):
        return any(step["name"] == name and step["result"] == "passed" for step in self.results)

    def table(self):
        width = max(len(step["name"]) for step in self.results)
        lines = [f"{'step':{width}}  result     seconds"]
        lines += [f"{step['name']:{width}}  {step['result']:9} {step['seconds']:8.1f}" for step in self.results]
        counts = {kind: sum(step["result"] == kind for step in self.results)
                  for kind in ("passed", "failed", "timed out", "skipped")}
        bad = counts["failed"] + counts["timed out"]
        return "\n".join(lines + [f"{counts['passed']} passed, {bad} failed, {counts['skipped']} skipped"])

    def all_good(self):
        """Whether nothing failed and something passed."""
        kinds = {step["result"] for step in self.results}
        return "passed" in kinds and not kinds & {"failed", "timed out"}


def build_steps(steps, build):
    """Configures and builds with the cuda backend. Returns whether that succeeded."""
    steps.run("dependencies", (ROOT / "deploy/install-deps.sh", "check"), 1800)
    setup = ["meson", "configure", build] if (build / "build.ninja").exists() else ["meson", "setup", build]
    steps.run("configure", (*setup, "-Dcuda=enabled", "-Dtests=true"), 300)
    if steps.passed("configure"):
        steps.run("build", ("ninja", "-C", build), 3600)
    return steps.passed("build")


# ---- results


def result_path(device, kind, suffix):
    name = re.sub(r"[^a-z0-9]+", "-", device["name"].lower()).strip("-")
    return ROOT / "bench" / "results" / f"{datetime.date.today().isoformat()}-{kind}-{name}{suffix}"


def heading(device, program):
    """The first fields of every file of results."""
    command = " ".join((program, *map(without_folders, sys.argv[1:])))
    switches = {name: without_folders(value) for name, value in sorted(os.environ.items())
                if name.startswith(("ATEDM_CUDA_", "ATEDM_CUDNN")) and name != "ATEDM_CUDA_BACKEND"}
    return {"date": datetime.date.today().isoformat(), "device": device, "commit": commit(), "command": command,
            "switches": switches}


def write_json(path, value):
    """Replaces the file at once, so that there is always a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    new.replace(path)


def interrupt_when_terminated():
    """SIGTERM, as `timeout` sends it, becomes Ctrl-C: the running step's programs end too, and results are written."""

    def interrupt(_number, _frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
