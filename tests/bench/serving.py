#!/usr/bin/env python3
"""Measures a daemon under load and writes the figures down.

usage: serving.py pays  [--model DIR] [--requests N] [--rounds N] [-o FILE.json]
       serving.py valve [--model DIR] [--seconds S] [--load X] [--objective S] [-o FILE.json] [--plots DIR]

pays:  images a second at saturation, one request at a time against as many as fit, in turns; the pictures have
       to be the same to the last byte.
valve: load over the unpruned capacity, with pruning "auto" and without any. The capacity is measured first.

ATEDMD and ATEDM name the programs; api.md has what `atedm bench serve` reports.
"""
import argparse
import concurrent.futures
import datetime
import hashlib
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
os.environ.setdefault("ATEDM_TEST_MODEL", str(ROOT / "models" / "demo"))
import daemon  # noqa: E402  (reads the environment)

CLIENTS = 16  # that wait at a time, at saturation
PATIENCE = 3600


def machine():
    names = [line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores {names[0]}"


def commit():
    return subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
                          capture_output=True, text=True, check=True).stdout.strip()


def write(path, name, args, figures):
    command = ["tests/bench/serving.py", name] + [f"--{key} {value}" for key, value in vars(args).items()
                                                 if key not in ("name", "output", "plots", "model")]
    result = {"date": datetime.date.today().isoformat(), "machine": machine(), "commit": commit(),
              "command": " ".join(command), "model": os.path.relpath(args.model, ROOT), **figures}
    text = json.dumps(result, indent=2) + "\n"
    if args.output:
        pathlib.Path(args.output).write_text(text)
    print(text, end="")


# ---- pays


def mixed_requests(count, native):
    """Sizes, steps, guidance, plans and numbers of images as users mix them."""
    rng = random.Random(1)
    return [{"prompt": "a red star on a white background", "seed": i, "steps": rng.choice([10, 15, 20]),
             "guidance_scale": rng.choice([1, 4, 4]), "width": size, "height": size,
             "pruning": rng.choice(["off", "at-edm-dagger", "at-edm"]), "num_images": rng.choice([1, 1, 2])}
            for i in range(count) for size in [rng.choice([native // 2, 3 * native // 4, native])]]


def pays(args):
    arms = {"one at a time": {"max_active": 1, "max_batch": 1}, "batched": {}}
    figures = {name: [] for name in arms}
    pictures = None
    for _ in range(args.rounds):
        for name, options in arms.items():
            with daemon.Daemon(model=args.model, log_level="warning", queue_limit=10000, **options) as d:
                requests = mixed_requests(args.requests, d.get("/v1/models").json()["models"][0]["native_width"])
                d.post("/generate", requests[0])  # warm
                start = time.monotonic()
                with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
                    answers = list(pool.map(lambda body: d.post("/generate", body), requests))
                seconds = time.monotonic() - start
            images = [hashlib.sha256(png).hexdigest() for a in answers for png in daemon.images_of(a)]
            pictures = pictures or images
            assert images == pictures, "other pictures"
            figures[name].append(len(images) / seconds)
            print(f"{name}: {figures[name][-1]:.3f} images/s", file=sys.stderr)
    ratios = [b / a for a, b in zip(figures["one at a time"], figures["batched"])]
    write(args.output, "pays", args, {"images_per_s": figures, "ratios": ratios,
                                      "ratio": statistics.median(ratios), "equal_pictures": len(pictures)})


# ---- valve


def bench(d, *options):
    result = subprocess.run([os.environ["ATEDM"], "bench", "serve", "--url", f"http://{d.host}:{d.port}", "--json",
                             *map(str, options)], capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def valve(args):
    size = ["--size", args.size, "--steps", 20, "--guidance-scale", 4]
    options = {"model": args.model, "log_level": "warning", "queue_limit": 10000,
               "latency_objective_s": args.objective, "auto_floor": args.floor}
    with daemon.Daemon(**options) as d:
        bench(d, *size, "--concurrency", CLIENTS, "--requests", CLIENTS, "--pruning", "off")  # warm
        capacity = bench(d, *size, "--concurrency", CLIENTS, "--duration", args.seconds / 2, "--pruning",
                         "off")["throughput"]["requests_per_s"]
    print(f"unpruned capacity: {capacity:.3f} requests/s", file=sys.stderr)
    figures = {"unpruned_capacity_per_s": capacity, "rate_per_s": args.load * capacity}
    for pruning in ("auto", "off"):
        with daemon.Daemon(**options) as d:
            bench(d, *size, "--concurrency", CLIENTS, "--requests", CLIENTS, "--pruning", "off")
            plot = ["--plot", str(pathlib.Path(args.plots) / f"load-{pruning}.svg")] if args.plots else []
            report = bench(d, *size, "--rate", args.load * capacity, "--duration", args.seconds, "--pruning",
                           pruning, *plot)
        figures[pruning] = {key: report[key] for key in ("requests", "arrivals", "throughput", "latency_s", "flops",
                                                         "pruning", "tenths")}
        total = report["latency_s"]["total"]
        print(f"{pruning}: p50 {total['p50']:.2f} s, p95 {total['p95']:.2f} s, plans {report['pruning']}",
              file=sys.stderr)
    write(args.output, "valve", args, figures)


def main():
    daemon.PATIENCE = PATIENCE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="name", required=True)
    for name, call in (("pays", pays), ("valve", valve)):
        command = commands.add_parser(name)
        command.set_defaults(call=call)
        command.add_argument("--model", default=os.environ["ATEDM_TEST_MODEL"])
        command.add_argument("-o", "--output")
        if name == "pays":
            command.add_argument("--requests", type=int, default=32)
            command.add_argument("--rounds", type=int, default=3)
        else:
            command.add_argument("--size", default="256x256")
            command.add_argument("--seconds", type=float, default=120)
            command.add_argument("--load", type=float, default=1.4)
            command.add_argument("--objective", type=float, default=15)
            command.add_argument("--floor", default="at-edm-a")
            command.add_argument("--plots")
    args = parser.parse_args()
    call = args.call
    del args.call
    call(args)


if __name__ == "__main__":
    main()
