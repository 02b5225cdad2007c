#!/usr/bin/env python3
"""All figures of the cuda backend in one run: `make bench-gpu`. Skipped (77) if no GPU answers.

On SDXL base's architecture with random weights: the device's ceilings, each operation against its floor, UNet evaluations
by batch and pruning, what pruning costs, whole denoising loops, text encoders and VAE, whole requests over HTTP, and PyTorch
beside them. Writes JSON, and the same as tables in markdown, to bench/results. Where a machine is there for minutes only,
--parts and --add do it piece by piece. --toy runs all of it at sizes that a processor does in seconds, to test it; its
figures mean nothing.
"""
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import device
import figures
import markdown

PRESETS = ("off", "at-edm-a", "at-edm-b", "at-edm-c", "at-edm-d", "at-edm-dagger")
COST = ("at-edm-c", figures.RANDOM, figures.ZERO, figures.ALL_ITERATIONS)
LOOP_PRUNINGS = ("off", "at-edm-c", "at-edm-dagger", figures.INTERVAL)
# To measure ranking not aside, on fewer multiprocessors, and before other work: the figure's name, and the value of
# ATEDM_CUDA_ASIDE.
ASIDE = {"in_order_s": "0", "aside_66_s": "66", "aside_44_s": "44", "aside_first_s": "first", "aside_66_first_s": "66 first"}
PARTS = ("evaluations", "cost", "loops", "kernels", "hopper", "requests", "pytorch")

FULL = {
    "backend": "cuda", "dtype": "bf16", "arch": "sdxl-base", "size": "1024x1024", "guidance": 8, "steps": 30,
    "batches": (1, 2, 8, 16), "presets": PRESETS, "cost_batches": (2, 16), "images": (1, 8), "repeat": 5, "loop_repeat": 3,
    "ceilings": (), "kernels": (), "own_conv": ("--op", "conv"),
    "hopper": (("attention",), ("conv",), ("linear",)),
    "latency": {"steps": 30, "clients": 1, "requests": 5}, "throughput": {"steps": 20, "clients": 16, "requests": 48},
    "served": ("off", "at-edm-c"), "pytorch": (2, 16),  # each takes a minute to compile
}
TOY = {
    "backend": "cpu", "dtype": "f32", "arch": str(device.ROOT / "config/arch-tiny.json"), "size": "64x64", "guidance": 8,
    "steps": 4, "batches": (1, 2), "presets": ("off", "at-edm-c"), "cost_batches": (2,), "images": (1,), "repeat": 2,
    "loop_repeat": 1,
    "ceilings": ("--matrix", 128, "--copy", 1),
    "kernels": (("sampler_step", 0), ("attention", 2)), "own_conv": (), "hopper": (),
    "latency": {"steps": 4, "clients": 1, "requests": 2}, "throughput": {"steps": 2, "clients": 2, "requests": 4},
    "served": ("off", "at-edm-c"), "pytorch": (1, 2),
}


# Each operation without and with the kernel for compute capability 9.0; "tried": with it wherever a trial chooses it.
WAYS = {
    "attention": {"portable": {"ATEDM_CUDA_ATTENTION": "portable"}, "hopper": {"ATEDM_CUDA_ATTENTION": "hopper"}},
    "conv": {"portable": {"ATEDM_CUDA_CONV": "auto"}, "hopper": {"ATEDM_CUDA_CONV": "hopper"}},
    "linear": {"portable": {"ATEDM_CUDA_LINEAR": "cublas"}, "tried": {"ATEDM_CUDA_LINEAR": "tried"},
               "hopper": {"ATEDM_CUDA_LINEAR": "hopper"}},
}
HOPPER_PRUNINGS = ("off", "at-edm-c")


def repeated(option, values):
    return [part for value in values for part in (option, value)]


class Bench:
    def __init__(self, options, settings):
        self.options, self.settings = options, settings
        self.steps = device.Steps(options.limits)
        self.environment = {"OMP_WAIT_POLICY": "passive", **device.linker_environment(options.build)}
        if settings["backend"] == "cuda":
            self.environment["ATEDM_CUDA_BACKEND"] = str(device.backend_file(options.build, options.emulated))
        self.others = {"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}  # for programs that are not ours
        os.environ.update(self.environment)  # for daemons too
        self.atedm = options.build / "cli/atedm"

    def report(self, name, *args, limit_s=3600, environment=None):
        """The report of `atedm bench step`. Raises NoReport if the step fails."""
        s = self.settings
        text = self.steps.run(name, (self.atedm, "bench", "step", "--arch", s["arch"], "--backend", s["backend"], "--dtype",
                                     s["dtype"], "--size", s["size"], "--steps", s["steps"], "--json", *args), limit_s,
                              environment)
        if not self.steps.passed(name):
            raise NoReport(name)
        return json.loads(text)

    def evaluations(self):
        s = self.settings
        return self.report("evaluations", *s["ceilings"], "--stages", "ceilings,text,unet,vae", "--ops", "--repeat", s["repeat"],
                           *repeated("--batch", s["batches"]), *repeated("--pruning", s["presets"]))

    def pruning_cost(self, name, prunings, environment=None):
        s = self.settings
        return self.report(name, *s["ceilings"], "--stages", "ceilings,unet", "--ops", "--repeat", s["repeat"],
                           *repeated("--batch", s["cost_batches"]), *repeated("--pruning", prunings), environment=environment)

    def hopper(self, ceilings):
        """Attention, convolutions and linear layers with and without the kernels for compute capability 9.0: alone, and in
        evaluations. None on other devices. An operation with trials is evaluated with trials, not with the kernel everywhere."""
        s = self.settings
        if not s["hopper"]:
            return None
        out = {"kernels": [], "evaluations": []}
        prunings = [p for p in HOPPER_PRUNINGS if p in s["presets"]]
        for op, *more in s["hopper"]:
            for way, environment in WAYS[op].items():
                lines = self.timed(f"{op}, {way}", ("--op", op, *more), environment)
                out["kernels"] += [{**line, "way": way} for line in figures.kernels(lines, ceilings)]
                if way == "hopper" and "tried" in WAYS[op]:
                    continue
                try:
                    report = self.report(f"evaluations, {op} {way}", "--stages", "ceilings,unet", "--ops", "--repeat",
                                         s["repeat"], *s["ceilings"], *repeated("--batch", s["batches"]),
                                         *repeated("--pruning", prunings), environment=environment)
                    evaluated = figures.evaluations(report, figures.ceilings_of(report))
                    out["evaluations"] += [{**entry, "op": op, "way": way} for entry in evaluated]
                except NoReport:
                    pass
        return out

    def loops(self):
        s = self.settings
        prunings = [p for p in LOOP_PRUNINGS if p in (*s["presets"], figures.INTERVAL)]
        return self.report("loops", "--stages", "loop", "--repeat", s["loop_repeat"], *repeated("--images", s["images"]),
                           *repeated("--pruning", prunings))

    def kernels(self):
        s, lines = self.settings, []
        chosen = [("--op", op, "--size", size) for op, size in s["kernels"]] or [()]
        for one in chosen:
            lines += self.timed(" ".join(("operations", *map(str, one[1::2]))), one, {})
        # Own convolutions too, in case cuDNN computed those above.
        if s["own_conv"]:
            own = self.timed("own convolutions", s["own_conv"], {"ATEDM_CUDA_CONV": "own"})
            lines += [{**line, "op": "conv, own"} for line in own]
        return lines

    def timed(self, name, chosen, environment):
        """The lines of `parity --bench`; none if it fails."""
        s = self.settings
        text = self.steps.run(name, (self.options.build / "tests/parity/parity", "--backend", s["backend"], "--required",
                                     "--dtype", s["dtype"], "--bench", "--json", *chosen), 1800, environment)
        return [json.loads(line) for line in text.splitlines()] if self.steps.passed(name) else []

    def model(self):
        """A folder with the model of random weights, made once; None if that fails."""
        folder = self.options.build / ("bench-model-toy" if self.options.toy else "bench-model")
        if not folder.exists():
            half = folder.with_suffix(".new")
            shutil.rmtree(half, ignore_errors=True)
            self.steps.run("model", (self.atedm, "mkmodel", "--arch", self.settings["arch"], "--seed", 1, "--dtype", "bf16", half),
                           1800)
            if not self.steps.passed("model"):
                return None
            half.rename(folder)
        return folder

    def requests(self, model):
        """Requests to a daemon: one client for the latency, many for the throughput."""
        os.environ.setdefault("ATEDMD", str(self.options.build / "server/atedmd"))
        os.environ.setdefault("ATEDM_TEST_MODEL", str(model))
        os.environ.setdefault("ATEDM_TEST_PATIENCE", str(int(1800 * self.options.limits)))
        sys.path.insert(0, str(device.ROOT / "tests/e2e"))
        os.environ["ATEDM_TEST_KEEP"] = " ".join(os.environ)  # a benchmark uses the shell's variables
        import daemon  # reads the environment
        s, out = self.settings, []
        with daemon.Daemon(model=str(model), backend=s["backend"], dtype=s["dtype"], log_level="warning", queue_limit=10000) as d:
            for kind in ("latency", "throughput"):
                load = s[kind]
                for pruning in s["served"]:
                    common = (self.atedm, "bench", "serve", "--url", f"http://{d.host}:{d.port}", "--size", s["size"], "--steps",
                              load["steps"], "--guidance-scale", s["guidance"], "--pruning", pruning, "--concurrency",
                              load["clients"], "--json")
                    name = f"{kind} {pruning}"
                    self.steps.run(name + ", warm-up", (*common, "--requests", load["clients"]), 1800)
                    text = self.steps.run(name, (*common, "--requests", load["requests"]), 3600)
                    if self.steps.passed(name):
                        out.append(self.served(kind, pruning, load, json.loads(text)))
        return out

    @staticmethod
    def served(kind, pruning, load, report):
        total = report["latency_s"]["total"]
        return {"kind": kind, "pruning": pruning, "steps": load["steps"], "clients": load["clients"],
                "images_per_s": report["throughput"]["images_per_s"], "p50_s": total["p50"], "max_s": total["max"],
                "mean_batch": report["batch"]["mean_size"], "failed": report["requests"]["failed"]}

    def pytorch(self, model):
        """Figures of PyTorch on the same device, or why there are none."""
        s, python = self.settings, self.options.pytorch
        if not python or not model:
            self.steps.skip("pytorch", "there is no model" if python else "with --toy only where --pytorch names a Python")
            return {"skipped": self.steps.results[-1]["last_line"]}
        where = ("--device", "cpu", "--dtype", "f32", "--repeat", 2) if self.options.toy else ()
        common = (python, device.ROOT / "tests/device/pytorch_unet.py", "--config", model / "unet/config.json", "--size",
                  s["size"].split("x")[0], *where)
        out = {"evaluations": []}
        # One process for each, so that a timeout of one does not lose the others' figures.
        for batch, mode in itertools.product(s["pytorch"], ("eager", "compiled", "tome")):
            name = f"pytorch {mode} {batch}"
            text = self.steps.run(name, (*common, "--batch", batch, "--modes", mode), 3600, self.others)
            if self.steps.passed(name):
                report = json.loads(text)
                out = {"versions": report["versions"], "evaluations": out["evaluations"] + report["evaluations"]}
        return out if out["evaluations"] else {"skipped": self.steps.results[-1]["last_line"]}


class NoReport(Exception):
    """A step that figures depend on has failed."""


def measure(bench, parts, result):
    """Adds the parts' figures to the result. The figures of failed steps are left out, but the ceilings must succeed, because
    everything is compared with them."""
    if "evaluations" in parts:
        report = bench.evaluations()
        ceilings = figures.ceilings_of(report)
        result.update(ceilings=ceilings, evaluations=figures.evaluations(report, ceilings),
                      stages=[{"stage": row["stage"], "batch": row["batch"], "seconds": row["median_s"],
                               "operations": figures.operations([{**row, "steps": 1}], ceilings)}
                              for row in report["stages"] if row["stage"] in ("text", "vae")])
    elif "ceilings" not in result:
        raise NoReport("evaluations, which have the ceilings")
    if "loops" in parts:  # first, because most of the bars are of them
        try:
            result["loops"] = figures.loops(bench.loops())
        except NoReport:
            pass
    if "cost" in parts:
        result["pruning_cost"] = measure_cost(bench)
    if "kernels" in parts:
        result["kernels"] = figures.kernels(bench.kernels(), result["ceilings"])
    if "hopper" in parts:
        result["hopper"] = bench.hopper(result["ceilings"])
    model = bench.model() if {"requests", "pytorch"} & set(parts) else None
    if "requests" in parts:
        result["requests"] = measure_requests(bench, model)
    if "pytorch" in parts:
        result["pytorch"] = bench.pytorch(model)
    result["bars"] = figures.bars(result)


def measure_cost(bench):
    def evaluated(*args):
        try:
            report = bench.pruning_cost(*args)
            return figures.evaluations(report, figures.ceilings_of(report))
        except NoReport:
            return []

    entries = evaluated("pruning cost", COST)
    others = {name: evaluated(f"pruning cost, {name}", (figures.PLAIN,), {"ATEDM_CUDA_ASIDE": value})
              for name, value in ASIDE.items()}
    costs = [figures.pruning_cost(entries, others, batch) for batch in bench.settings["cost_batches"]]
    return [entry for entry in costs if entry]


def measure_requests(bench, model):
    try:
        return bench.requests(model) if model else []
    except (AssertionError, OSError, subprocess.SubprocessError) as error:  # the daemon does not start or does not end
        bench.steps.note("requests", [], "failed", time.monotonic(), str(error), "")
        return []


def opened(options, output, head):
    """The result to which figures are added: an empty one or, with --add, an earlier one of the same device and commit."""
    empty = {"pruning_cost": [], "loops": [], "kernels": [], "hopper": None, "requests": [],
             "pytorch": {"skipped": "not measured"}, "steps": []}
    if not options.add or not output.exists():
        return {**head, **empty}
    before = json.loads(output.read_text(encoding="utf-8"))

    def origin(run):
        return run["device"]["name"], run["commit"], run.get("switches", {})

    if origin(before) != origin(head):
        sys.exit(f"bench_gpu.py: {output} is of another device or commit, or was measured with other switches")
    return {**before, "command": f"{before['command']}; {head['command']}"}


def parse():
    parser = device.parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default all")
    parser.add_argument("--batches", nargs="+", type=int, metavar="N", help="of evaluations; default 1, 2, 8 and 16")
    parser.add_argument("--add", action="store_true", help="to the figures that stand in the output")
    parser.add_argument("--toy", action="store_true", help="a tiny model on the processor: a test, no figures")
    parser.add_argument("--emulated", action="store_true", help="--toy on the emulated backend of the build folder")
    parser.add_argument("--pytorch", metavar="PYTHON", help="a Python that has torch and diffusers; default this one; with --toy none")
    parser.add_argument("--limits", type=float, default=1, help="a factor of all time limits")
    parser.add_argument("-o", "--output", type=pathlib.Path,
                        help="a .json; the tables go beside it; default bench/results/DATE-bench-DEVICE.json")
    options = parser.parse_args()
    options.toy |= options.emulated
    if not options.pytorch and not options.toy:
        options.pytorch = sys.executable
    return options


def main():
    options = parse()
    device.interrupt_when_terminated()
    settings = dict(TOY if options.toy else FULL)
    if options.emulated:
        settings.update(backend="cuda", dtype="bf16", kernels=(("sampler_step", 0),), hopper=(("attention", "--size", 2),))
        os.environ["ATEDM_EMULATED_SM"] = "90"
    if options.batches:
        settings["batches"] = options.batches
    if options.toy:
        found = {"name": "toy", "driver": None}
    else:
        found = device.device_or_exit(False, "the benchmark")
        if not device.may_be_hopper(found):
            settings["hopper"] = ()
    output = options.output or device.result_path(found, "bench", ".json")
    bench = Bench(options, settings)
    result = opened(options, output, {**device.heading(found, "tests/device/bench_gpu.py"), "toy": options.toy, "settings": settings})
    before = result["steps"]
    bench.steps.save = lambda: device.write_json(output, {**result, "steps": before + bench.steps.results})
    status = 1
    if options.no_build or device.build_steps(bench.steps, options.build):
        try:
            measure(bench, options.parts, result)
            status = 0 if bench.steps.all_good() else 1
        except NoReport as name:
            print(f"there are no figures without: {name}")
    print("\n" + bench.steps.table())
    bench.steps.save()
    print(f"written: {os.path.relpath(output)}")
    result["steps"] = before + bench.steps.results
    if "bars" in result:
        text = markdown.text(result)
        output.with_suffix(".md").write_text(text, encoding="utf-8")
        print("\n" + "\n".join(text.split("## Ceilings")[0].splitlines()[2:]))
    return status


if __name__ == "__main__":
    sys.exit(main())
