#!/usr/bin/env python3
"""The quality evaluation. For each way to prune, a live daemon draws prompts with known content; this program reads the
pictures, compares them with the prompts and counts what is right. README.md beside this file explains the method.

Writes OUT/quality.json, OUT/quality.md, OUT/quality.png and the pictures; prints the Markdown too.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import hashlib
import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from arms import ARMS
from evaluate import DRAWN, Series, compare_all, measure, measure_drawn, reference, summary
from generate import generate_all, load, place
from prompts import DEFAULT_SETS, PER_SET, SETS, prompts
from report import markdown
from world import ROOT

PATIENCE = 1200  # seconds to wait for one picture


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Evaluates the demo model under pruning.")
    parser.add_argument("--model", default=os.environ.get("ATEDM_TEST_MODEL", str(ROOT / "models" / "demo")))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--prompts", type=int, default=PER_SET, metavar="N", help="prompts of each set (default %(default)s)")
    parser.add_argument("--sets", nargs="+", default=list(DEFAULT_SETS), metavar="SET",
                        help=f"from {', '.join(SETS)} (default: {', '.join(DEFAULT_SETS)})")  # fmt: skip
    parser.add_argument("--arms", nargs="+", default=list(ARMS), metavar="ARM",
                        help=f"from {', '.join(ARMS)} (default: all of them)")  # fmt: skip
    parser.add_argument("--peers", nargs="+", default=[], metavar="ARM", help="also evaluate these arms of peer.py in DIR")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "quality", metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="keep the pictures that are in DIR, and make the others")
    args = parser.parse_args()
    args.arms, args.sets = (",".join(names).split(",") for names in (args.arms, args.sets))
    for name in [*(a for a in args.arms if a not in ARMS), *(s for s in args.sets if s not in SETS)]:
        parser.error(f"there is no {name!r}")
    # The other arms are compared with the unpruned pictures, so these are always made, and first.
    args.arms = ["off", *(arm for arm in args.arms if arm != "off")]
    for name, peer in itertools.product(args.sets, args.peers):
        if not place(args.out, name, peer, args.prompts - 1).with_suffix(".json").exists():
            parser.error(f"--peers: {args.out} has not {args.prompts} pictures of {peer!r} in {name!r}")
    if args.peers and args.sampler != "euler":
        parser.error("--peers: peer.py uses the model's own sampler, euler")
    if args.prompts < 2:
        parser.error("--prompts: at least 2")
    return args


def live_daemon(model: str):
    """Starts a daemon. daemon.py reads the program and the model from the environment when it is imported."""
    os.environ["ATEDM_TEST_MODEL"] = model
    import daemon

    daemon.PATIENCE = PATIENCE
    return daemon.Daemon(log_level="warning")


def digest(*files: Path) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.read_bytes())
    return whole.hexdigest()[:16]


def check_resume(args: argparse.Namespace):
    """Ends the program if --resume would mix in pictures of another model, program or other settings."""
    files = sorted(file for file in Path(args.model).rglob("*") if file.suffix in (".json", ".safetensors"))
    settings = {"model": digest(*files), "program": digest(Path(os.environ["ATEDMD"])), "steps": args.steps,
                "guidance": args.guidance, "sampler": args.sampler}  # fmt: skip
    path = args.out / "settings.json"
    if args.resume and path.exists() and json.loads(path.read_text()) != settings:
        sys.exit(f"{path} belongs to another model, program or other settings: omit --resume, or choose another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings))


def about_this_run(args: argparse.Namespace, size: tuple[int, int]) -> dict:
    git = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True)
    commit = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip() or "unknown"
    changed = git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    cpus = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")]  # fmt: skip
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit + (" with changes" if changed else ""),
        "command": shlex.join([f"tests/quality/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "cpu": f"{cpus[0] if cpus else 'unknown CPU'}, {os.cpu_count()} logical CPUs",
        "model": os.path.relpath(args.model, ROOT),
        "width": size[0],
        "height": size[1],
        "steps": args.steps,
        "guidance": args.guidance,
        "sampler": args.sampler,
    }


def group_figures(series: dict[str, Series], drawn: np.ndarray) -> dict:
    return {
        "prompts": len(series["off"].verdicts),
        "arms": {arm: summary(s, drawn) for arm, s in series.items()},
        "comparisons": compare_all(series),
    }


def evaluate(args: argparse.Namespace, sets: dict, arms: list[str]) -> tuple[dict, tuple[int, int]]:
    """The figures of each set and of all sets together, and the size of the pictures."""
    groups, everything, references = {}, {}, []
    for name, wanted in sets.items():
        read = functools.lru_cache(maxsize=2 * len(wanted))(functools.partial(load, args.out, name))
        height, width = read("off", 0)[0].shape[:2]
        series = {arm: measure(wanted, arm, read) for arm in arms}
        series[DRAWN] = measure_drawn(wanted, (width, height))
        references.append(reference(name, (width, height)))
        groups[name] = group_figures(series, references[-1])
        everything = {arm: everything.get(arm, Series()).joined(s) for arm, s in series.items()}
    groups["all"] = group_figures(everything, np.concatenate(references))
    return groups, (width, height)


def main():
    os.environ.setdefault("ATEDMD", str(ROOT / "build" / "server" / "atedmd"))
    args = options()
    check_resume(args)
    sets = {name: prompts(name, args.prompts) for name in args.sets}
    with live_daemon(args.model) as daemon:
        settings = {"steps": args.steps, "guidance_scale": args.guidance, "sampler": args.sampler}
        refused = generate_all(daemon, sets, {arm: ARMS[arm] for arm in args.arms}, args.out, settings, args.resume)
    groups, size = evaluate(args, sets, [*(arm for arm in args.arms if arm not in refused), *args.peers])
    report = {"run": about_this_run(args, size), "refused": refused, "groups": groups}
    (args.out / "quality.json").write_text(json.dumps(report, indent=1) + "\n")
    text = markdown(report)
    (args.out / "quality.md").write_text(text)
    print(text)
    try:
        from plot import draw_plot
    except ImportError:
        print("No plot: python3-matplotlib is missing.", file=sys.stderr)
    else:
        draw_plot(report, args.out / "quality.png")


if __name__ == "__main__":
    main()
