#!/usr/bin/env python3
"""Makes pictures of the same prompts and seeds with diffusers: unchanged, and with tokens merged by ToMe (Bolya and Hoffman
2023, package tomesd). `quality.py --peers` compares them with the daemon's. Needs a Python with torch, diffusers,
transformers and tomesd.

ToMe merges the most similar tokens before each attention, cross-attention and feed-forward, and separates them again after
it. The ratios are chosen so that the UNet has as many FLOPs as with the preset after the @. PyTorch's own counter counts
them; it also counts the search for similar tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import diffusers
import torch

from generate import Progress, place
from prompts import DEFAULT_SETS, prompts
from world import ROOT

sys.path.insert(0, str(ROOT / "tests" / "device"))
from pytorch_unet import TOME_EVERYWHERE, count_flops, inputs, patch  # noqa: E402

# name: tomesd's settings
ARMS = {
    "diffusers": None,
    "tome@c": {"ratio": 0.41, **TOME_EVERYWHERE},
    "tome@dagger": {"ratio": 0.26, **TOME_EVERYWHERE},
    "tome-attention@dagger": {"ratio": 0.75, "max_downsample": 8},  # in self-attention only, as its authors recommend
}


def flops_of(config: dict, settings: dict | None) -> int:
    """The FLOPs of one evaluation of one sample at the model's native size."""
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(config)
    patch(unet, settings)
    return count_flops(torch, unet, *inputs(torch, config, 1, config["sample_size"], "meta", torch.float32))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "demo"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--prompts", type=int, default=50, metavar="N", help="prompts of each set (default %(default)s)")
    parser.add_argument("--sets", nargs="+", default=list(DEFAULT_SETS), metavar="SET")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS, metavar="ARM", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "quality", metavar="DIR")
    return parser.parse_args()


def main():
    args = options()
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(args.model, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    config = dict(pipeline.unet.config)
    baseline = flops_of(config, None)
    progress = Progress(len(args.arms) * len(args.sets) * args.prompts)
    for arm in args.arms:
        flops = flops_of(config, ARMS[arm])
        for name in args.sets:
            for prompt in prompts(name, args.prompts):
                torch.manual_seed(prompt.seed)  # ToMe takes its random numbers from here when it is patched in
                patch(pipeline.unet, ARMS[arm])
                start = time.perf_counter()
                made = pipeline(prompt.text, num_inference_steps=args.steps, guidance_scale=args.guidance,
                                generator=torch.Generator().manual_seed(prompt.seed)).images[0]  # fmt: skip
                seconds = time.perf_counter() - start
                path = place(args.out, name, arm, prompt.number)
                path.parent.mkdir(parents=True, exist_ok=True)
                made.save(path.with_suffix(".png"))
                # The same fields as in the daemon's answers, for evaluate.py.
                said = {"flops": {"baseline": baseline, "unet": flops, "overhead": 0, "text_encoder": 0, "vae": 0},
                        "latency": {"denoise_s": seconds, "text_encoder_s": 0, "vae_s": 0, "encode_s": 0},
                        "batch": {"mean_size": 1}}  # fmt: skip
                path.with_suffix(".json").write_text(json.dumps({"prompt": prompt.text, "seed": prompt.seed, **said}))
                progress.step(f"{name} {arm}")


if __name__ == "__main__":
    main()
