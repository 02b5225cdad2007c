#!/usr/bin/env python3
"""Where the time of one UNet evaluation goes on the GPU, kernel by kernel, inside its CUDA graph: what runs, what runs beside
something else, and when nothing runs. Skipped (77) without a GPU. `atedm bench step --ops` cannot show this: it runs one operation
after another.

    tests/device/timeline.py --no-build --batch 2 --pruning off at-edm-c
    tests/device/timeline.py --read FILE.csv        (a file that an earlier run has kept with --keep)
"""
import collections
import os
import pathlib
import re
import sys
import tempfile

import device

MOST_GAPS = 10
MOST_KERNELS = 40
LENGTH = re.compile(r"\d+")  # in a mangled name, before each part

Record = collections.namedtuple("Record", "start end launch graph stream blocks threads name")


def read(lines):
    """The records of a file that timeline.c has written."""
    records = []
    for line in lines:
        *numbers, name = line.rstrip("\n").split(",", 7)
        records.append(Record(*map(int, numbers), name))
    return records


def short_name(mangled):
    """The function's own name; other text stays unchanged."""
    name, at = mangled, len(re.match(r"(_ZN?)?", mangled)[0])
    while number := LENGTH.match(mangled, at):
        at = number.end() + int(number[0])
        name = mangled[number.end():at]
    return name


def evaluations(records):
    """The records of the last launch of each graph, in the order of these launches."""
    launches = collections.defaultdict(list)
    for record in records:
        if record.graph:
            launches[record.graph, record.launch].append(record)
    last = {}
    for (graph, _), nodes in sorted(launches.items(), key=lambda item: min(r.start for r in item[1])):
        last.pop(graph, None)
        last[graph] = nodes
    return list(last.values())


def sweep(records):
    """Yields (start, end, records that run) for each interval between two events, those with nothing too."""
    timed = [(i, r) for i, r in enumerate(records) if r.end > r.start]  # CUPTI may have no times for some
    events = sorted([(r.start, 1, i) for i, r in timed] + [(r.end, 0, i) for i, r in timed])
    running, before = set(), None
    for time, begins, i in events:
        if before is not None and time > before:
            yield before, time, [records[j] for j in running]
        before = time
        (running.add if begins else running.discard)(i)


def summary(records):
    """Seconds: span, from the first start to the last end; idle; beside, during which several run. By kernel: calls,
    seconds, and alone, the part during which nothing else runs. The longest gaps, each with the kernel behind it."""
    kernels = collections.defaultdict(lambda: {"calls": 0, "seconds": 0.0, "alone_s": 0.0})
    total = {"records": len(records), "span_s": 0.0, "idle_s": 0.0, "beside_s": 0.0}
    for record in records:
        kernel = kernels[short_name(record.name)]
        kernel["calls"] += 1
        kernel["seconds"] += (record.end - record.start) / 1e9
    gaps, following = [], {record.start: short_name(record.name) for record in records}
    for start, end, running in sweep(records):
        seconds = (end - start) / 1e9
        total["span_s"] += seconds
        if not running:
            total["idle_s"] += seconds
            gaps.append({"seconds": seconds, "before": following[end]})
        elif len(running) == 1:
            kernels[short_name(running[0].name)]["alone_s"] += seconds
        else:
            total["beside_s"] += seconds
    ordered = sorted(({"name": name, **kernel} for name, kernel in kernels.items()), key=lambda k: -k["seconds"])
    return {**total, "gaps": len(gaps), "longest_gaps": sorted(gaps, key=lambda g: -g["seconds"])[:MOST_GAPS], "kernels": ordered}


def text(found):
    us = {key: 1e6 * found[key] for key in ("span_s", "idle_s", "beside_s")}
    lines = [f"{found['records']} records in {us['span_s']:.1f} us: idle {us['idle_s']:.1f} us in {found['gaps']} gaps, "
             f"several at a time {us['beside_s']:.1f} us", f"{'kernel':40} {'calls':>6} {'us':>9} {'alone':>9} {'share':>6}"]
    for kernel in found["kernels"][:MOST_KERNELS]:
        lines.append(f"{kernel['name'][:40]:40} {kernel['calls']:6} {1e6 * kernel['seconds']:9.1f} {1e6 * kernel['alone_s']:9.1f} "
                     f"{kernel['seconds'] / found['span_s']:6.1%}")
    lines += [f"idle {1e6 * gap['seconds']:.1f} us before {gap['before']}" for gap in found["longest_gaps"]]
    return "\n".join(lines)


def record_evaluations(options, steps, pruning, path):
    """Runs the benchmark with the library in it. Returns whether that succeeded."""
    environment = {**device.environment(options.build, False), "CUDA_INJECTION64_PATH": str(options.build / device.TIMELINE),
                   "ATEDM_TIMELINE": str(path)}
    name = f"timeline {pruning}"
    steps.run(name, (options.build / "cli/atedm", "bench", "step", "--arch", options.arch, "--backend", "cuda", "--dtype", "bf16",
                     "--batch", options.batch, "--pruning", pruning, "--stages", "unet", "--repeat", 3), 600, environment)
    return steps.passed(name) and path.exists()


def measure(options, steps, found):
    """Adds to the list `found`, and saves after each plan."""
    with tempfile.TemporaryDirectory() as folder:
        for number, pruning in enumerate(options.pruning):
            path = (options.keep or pathlib.Path(folder)) / f"timeline-{number}.csv"
            if not record_evaluations(options, steps, pruning, path):
                continue
            with path.open(encoding="utf-8") as lines:
                for nodes in evaluations(read(lines)):
                    found.append({"pruning": pruning, "batch": options.batch, **summary(nodes)})
                    print(f"\n{pruning}, batch of {options.batch}\n{text(found[-1])}", flush=True)
            steps.save()


def main():
    parser = device.parser(__doc__)
    parser.add_argument("--arch", default="sdxl-base", help="as of `atedm bench step`; default sdxl-base")
    parser.add_argument("--batch", type=int, default=2, help="samples; default 2")
    parser.add_argument("--pruning", nargs="+", default=["off", "at-edm-c"], help="default off at-edm-c")
    parser.add_argument("--keep", type=pathlib.Path, metavar="FOLDER", help="keeps the records there")
    parser.add_argument("--read", type=pathlib.Path, metavar="FILE", help="runs nothing, shows these records")
    parser.add_argument("-o", "--output", type=pathlib.Path, help="default bench/results/DATE-timeline-DEVICE.json")
    options = parser.parse_args()
    if options.read:
        with options.read.open(encoding="utf-8") as lines:
            for nodes in evaluations(read(lines)):
                print(text(summary(nodes)) + "\n")
        return 0
    device.interrupt_when_terminated()
    gpu = device.device_or_exit(False, "the timeline")
    output = options.output or device.result_path(gpu, "timeline", ".json")
    heading, found = device.heading(gpu, "tests/device/timeline.py"), []
    steps = device.Steps(save=lambda: device.write_json(output, {**heading, "evaluations": found, "steps": steps.results}))
    if options.no_build or device.build_steps(steps, options.build):
        measure(options, steps, found)
    print(f"\n{steps.table()}\nwritten: {os.path.relpath(output)}")
    return 0 if steps.all_good() and found else 1


if __name__ == "__main__":
    sys.exit(main())
