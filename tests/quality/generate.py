"""Pictures from the daemon, kept on disk: <out>/pictures/<set>/<arm>/<number>.png, and .json with what the answer
said about it."""

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

CLIENTS = 8  # at once: the daemon steps their pictures together, and none depends on the others
KEPT = ("pruning", "flops", "latency", "batch")  # parts of an answer that the evaluation needs


class Refused(Exception):
    """The daemon does not know such a way to prune."""


def ask(daemon, prompt: Prompt, pruning, settings: dict) -> tuple[bytes, dict]:
    """The PNG file, and the answer without it."""
    fields = {"prompt": prompt.text, "seed": prompt.seed, "pruning": pruning, **settings}
    answer = daemon.post("/generate", fields)
    if answer.status == 422:
        raise Refused("; ".join(f"{e['pointer']} {e['detail']}" for e in answer.json()["errors"]))
    if answer.status != 200:
        raise RuntimeError(f"{answer.status} for {fields}: {answer.body!r}")
    body = answer.json()
    return base64.b64decode(body["images"][0]["b64_json"]), {key: body[key] for key in KEPT}


def pixels(png: bytes) -> np.ndarray:
    """U8 [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def place(out: Path, set_name: str, arm: str, number: int) -> Path:
    """Without the suffix."""
    return out / "pictures" / set_name / arm / f"{number:04}"


def load(out: Path, set_name: str, arm: str, number: int) -> tuple[np.ndarray, dict]:
    path = place(out, set_name, arm, number)
    return pixels(path.with_suffix(".png").read_bytes()), json.loads(path.with_suffix(".json").read_text())


class Progress:
    """A line on a terminal, nothing elsewhere."""

    def __init__(self, total: int):
        self.total, self.done, self.shown = total, 0, sys.stderr.isatty()

    def step(self, what: str, done: int = 1):
        self.done += done
        if self.shown:
            end = "\n" if self.done == self.total else ""
            print(f"\r{self.done}/{self.total} {what:<40}", end=end, file=sys.stderr, flush=True)


def make(daemon, prompt: Prompt, pruning, settings: dict, path: Path):
    """One picture on disk; what says that it is whole comes last, and at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    png, said = ask(daemon, prompt, pruning, settings)
    path.with_suffix(".png").write_bytes(png)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"prompt": prompt.text, "seed": prompt.seed, **said}))
    part.rename(path.with_suffix(".json"))


def generate_all(daemon, sets: dict[str, list[Prompt]], arms: dict, out: Path, settings: dict,
                 resume: bool) -> dict[str, str]:  # fmt: skip
    """Fills `out`; `settings`: fields that all requests have. The arms that were refused, and why. With `resume`, what is there stays."""
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
