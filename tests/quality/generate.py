"""Gets pictures from the daemon and keeps them on disk: <out>/pictures/<set>/<arm>/<number>.png, and beside it a .json with
parts of the answer."""

from __future__ import annotations

import base64
import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from prompts import Prompt

CLIENTS = 8  # requests at a time; the daemon evaluates their pictures together, but none depends on the others
KEPT = ("pruning", "flops", "latency", "batch")  # parts of an answer that the evaluation needs


class Refused(Exception):
    """The daemon refuses this way to prune."""


def ask(daemon, prompt: Prompt, pruning, settings: dict) -> tuple[bytes, dict]:
    """Requests one picture; returns the PNG file and the kept parts of the answer."""
    fields = {"prompt": prompt.text, "seed": prompt.seed, "pruning": pruning, **settings}
    answer = daemon.post("/generate", fields)
    if answer.status == 422:
        raise Refused("; ".join(f"{e['pointer']} {e['detail']}" for e in answer.json()["errors"]))
    if answer.status != 200:
        raise RuntimeError(f"{answer.status} for {fields}: {answer.body!r}")
    body = answer.json()
    return base64.b64decode(body["images"][0]["b64_json"]), {key: body[key] for key in KEPT}


def pixels(png: bytes) -> np.ndarray:
    """The picture of a PNG file, u8 [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def place(out: Path, set_name: str, arm: str, number: int) -> Path:
    """The path of a picture's files, without the suffix."""
    return out / "pictures" / set_name / arm / f"{number:04}"


def load(out: Path, set_name: str, arm: str, number: int) -> tuple[np.ndarray, dict]:
    path = place(out, set_name, arm, number)
    return pixels(path.with_suffix(".png").read_bytes()), json.loads(path.with_suffix(".json").read_text())


class Progress:
    """Shows progress on one line of a terminal; shows nothing if standard error is not a terminal."""

    def __init__(self, total: int):
        self.total, self.done, self.shown = total, 0, sys.stderr.isatty()

    def step(self, what: str, done: int = 1):
        self.done += done
        if self.shown:
            end = "\n" if self.done == self.total else ""
            print(f"\r{self.done}/{self.total} {what:<40}", end=end, file=sys.stderr, flush=True)


def make(daemon, prompt: Prompt, pruning, settings: dict, path: Path):
    """Makes one picture on disk. The .json shows that it is complete, so it is written last, and atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    png, said = ask(daemon, prompt, pruning, settings)
    path.with_suffix(".png").write_bytes(png)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"prompt": prompt.text, "seed": prompt.seed, **said}))
    part.rename(path.with_suffix(".json"))


def generate_all(daemon, sets: dict[str, list[Prompt]], arms: dict, out: Path, settings: dict,
                 resume: bool) -> dict[str, str]:  # fmt: skip
    """Makes all pictures in `out`. `settings`: the fields that all requests have. With `resume`, pictures that exist are kept.
    Returns the arms that the daemon refused, and why."""
    refused = {}
    progress = Progress(sum(map(len, sets.values())) * len(arms))
    with ThreadPoolExecutor(CLIENTS) as pool:
        for set_name, prompts in sets.items():
            for arm, pruning in arms.items():
                paths = [(prompt, place(out, set_name, arm, prompt.number)) for prompt in prompts]
                wanted = [(prompt, path) for prompt, path in paths if not (resume and path.with_suffix(".json").exists())]
                if arm in refused:
                    continue
                made = [pool.submit(make, daemon, prompt, pruning, settings, path) for prompt, path in wanted]
                progress.step(f"{set_name} {arm}", len(prompts) - len(wanted))
                try:
                    for each in made:
                        each.result()
                        progress.step(f"{set_name} {arm}")
                except Refused as error:
                    refused[arm] = str(error)
    return refused
