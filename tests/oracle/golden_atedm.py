"""AT-EDM goldens: pruned denoising in float64 with every decision, and how close each decision was."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

from atedm_oracle import Margins, Method, Pruner, split_mix
from atedm_plan import resolve
from common import DATA_DIR, load_pipeline, write_json, write_tensors
from golden_pipeline import NEGATIVE, PROMPT, Request, initial_latents, text_stage, to_bytes

Tensors = dict[str, torch.Tensor]
Pruning = dict[str, Any]

LEAST_MARGIN = 1e-4
LEAST_STOP_MARGIN = 2e-6  # absolute; in f32 the change itself is good to about 1e-7
SEED_TRIES = 40
MAX_F32_ERROR = 2e-5

# As Wang et al. describe it, and what the presets do beside it.
PAPER = {"selection": "top", "recovery": "attention", "copy": "value", "proportional_attention": False, "masks": "own"}
PRESET = {"selection": "sampled", "copy": "update", "proportional_attention": True, "masks": "shared"}

WITH_IMAGE = ("ratio-0.63", "dsap", "c-unguided")  # the decoder is held by other goldens
SMALL, MIDDLE = (96, 64), (128, 96)


def uniform(ratio: float, **changes: Any) -> Pruning:
    """A `pruning` object that leaves nothing to presets."""
    return {"ratio": ratio, "schedule": "uniform", "prune_after": [0], **PAPER, **changes}


def case(model: str, pruning: Pruning, size: tuple[int, int] = SMALL, steps: int = 2, guidance: float = 7.0) -> dict:
    request = Request(PROMPT, NEGATIVE, size[0], size[1], steps, guidance, 100, 1)
    return {"model": model, "request": request, "pruning": pruning}


def score(**changes: Any) -> Pruning:
    return {"map": "self", "heads": "rms", "max_iterations": 8, "tolerance": 1e-3, **changes}


def cases() -> dict[str, dict]:
    """Ratios, pruning layers, rankings, recoveries, schedules; then the other two topologies."""
    both = {"prune_after": [0, 2]}
    phases = [
        {"until": 0.3, "ratio": 0.25, "skip": ["down.first", "up.last", "mid"]},
        {"until": 0.75, "ratio": 0.5, "skip": ["up.0.1"]},
        {"until": 1.0, "ratio": 0.8, "skip": []},
    ]
    phased = {"phases": phases, "prune_after": [0], **PAPER}
    shared = {"masks": "shared"}
    sampled = {"selection": "sampled"}
    dsap = uniform(0.63, schedule="dsap", tau=0.3)
    return {
        "ratio-0": case("b", uniform(0.0), MIDDLE),
        "ratio-0.3": case("b", uniform(0.3), MIDDLE),
        "ratio-0.63": case("b", uniform(0.63), MIDDLE),
        "ratio-0.9": case("b", uniform(0.9), MIDDLE),
        "after-1": case("b", uniform(0.63, prune_after=[1])),
        "after-2": case("b", uniform(0.63, prune_after=[2])),
        "after-0-2": case("b", uniform(0.5, **both)),
        "after-0-1-2": case("b", uniform(0.4, prune_after=[0, 1, 2])),
        "cross": case("b", uniform(0.63, score=score(map="cross"))),
        "cross-mean-0-2": case("b", uniform(0.5, score=score(map="cross", heads="mean"), **both)),
        "mean-heads": case("c", uniform(0.63, score=score(heads="mean"))),
        "iterations-1": case("b", uniform(0.63, score=score(max_iterations=1))),
        "iterations-64": case("c", uniform(0.63, score=score(max_iterations=64, tolerance=1e-4))),
        "tolerance-0.1": case("c", uniform(0.63, score=score(tolerance=0.1))),
        "cosine": case("b", uniform(0.63, recovery="cosine")),
        "cosine-0-2": case("b", uniform(0.5, recovery="cosine", **both)),
        "zero": case("b", uniform(0.63, recovery="zero")),
        "zero-0-2": case("b", uniform(0.5, recovery="zero", **both)),
        "nearest": case("b", uniform(0.63, recovery="nearest")),
        "nearest-0-2": case("b", uniform(0.5, recovery="nearest", **both)),
        "dsap": case("b", dsap, steps=5),
        "phases": case("b", phased, steps=4),
        "skip-level-1": case("b", uniform(0.63, skip_levels=[1])),
        "skip-level-2": case("b", uniform(0.63, skip_levels=[2])),
        "a-dsap": case("a", dsap, (160, 96), steps=4),
        "a-cosine-0-1": case("a", uniform(0.3, prune_after=[0, 1], recovery="cosine"), MIDDLE),
        "a-cross": case("a", uniform(0.9, score=score(map="cross")), MIDDLE),
        "c-ratio-0.63": case("c", uniform(0.63), MIDDLE),
        "c-nearest-0-1": case("c", uniform(0.5, prune_after=[0, 1], recovery="nearest"), MIDDLE),
        "shared": case("b", uniform(0.63, **shared)),
        "shared-0-2": case("b", uniform(0.5, **both, **shared)),
        "shared-cosine": case("b", uniform(0.63, recovery="cosine", **shared)),
        "shared-zero": case("b", uniform(0.63, recovery="zero", **shared)),
        "shared-dsap": case("b", dsap | shared, steps=5),
        "a-shared-nearest-0-1": case("a", uniform(0.3, prune_after=[0, 1], recovery="nearest", **shared), MIDDLE),
        "c-shared-cross": case("c", uniform(0.63, score=score(map="cross"), **shared), MIDDLE),
        "update-0-1-2": case("b", uniform(0.4, prune_after=[0, 1, 2], copy="update")),
        "update-zero-0-2": case("b", uniform(0.5, recovery="zero", copy="update", **both)),
        "proportional-0-2": case("b", uniform(0.5, proportional_attention=True, **both)),
        "preset-0-1": case("b", uniform(0.3, recovery="cosine", prune_after=[0, 1], **PRESET)),
        "a-preset": case("a", uniform(0.63, **PRESET)),
        "sampled": case("b", uniform(0.63, **sampled)),
        "sampled-cross-0-2": case("b", uniform(0.5, score=score(map="cross"), **both, **sampled)),
        "interval-2": case("b", uniform(0.63, score=score(interval=2)), steps=3),
        "interval-3-dsap": case("b", dsap | {"score": score(interval=3), **PRESET}, steps=6),
        "c-unguided": case("c", uniform(0.3), MIDDLE, guidance=1.0),
    }


def derivative(scheduler: EulerDiscreteScheduler, x: torch.Tensor, output: torch.Tensor, sigma: float) -> torch.Tensor:
    """dx/dsigma by the model's kind of prediction, without diffusers' rounding to f32."""
    if scheduler.config.prediction_type == "epsilon":
        return output
    denoised = x / (sigma**2 + 1.0) - output * sigma / (sigma**2 + 1.0) ** 0.5
    return (x - denoised) / sigma


def run(
    pipeline: StableDiffusionXLPipeline, request: Request, pruning: Pruning, dtype: torch.dtype
) -> tuple[Tensors, Margins]:
    """Text stage in f32, all that follows in `dtype`. Takes the pipeline: its UNet stays pruned."""
    text = text_stage(pipeline, request)
    x = initial_latents(pipeline, request).to(dtype)
    unet, vae, scheduler = pipeline.unet.to(dtype), pipeline.vae.to(dtype), pipeline.scheduler
    rows = text["prompt_embeds"].shape[0]
    size = (request.height, request.width)
    added = {
        "text_embeds": text["pooled_prompt_embeds"].to(dtype),
        "time_ids": torch.tensor([[*size, 0, 0, *size]] * rows, dtype=dtype),
    }
    context = text["prompt_embeds"].to(dtype)
    pruner = Pruner(unet, Method.of(pruning))
    plan = resolve(pruning, pruner.blocks, request.steps)
    tensors: Tensors = {}
    for k, timestep in enumerate(scheduler.timesteps):
        sigma, following = scheduler.sigmas[k].item(), scheduler.sigmas[k + 1].item()
        pruner.start_step(plan[k], split_mix(request.seed, k))
        scaled = (x / (sigma**2 + 1.0) ** 0.5).repeat(rows, 1, 1, 1)
        predicted = unet(scaled, timestep, context, added_cond_kwargs=added).sample
        tensors[f"noise_pred.{k}"] = predicted
        for block, traces in pruner.traces.items():
            tensors[f"kept.{k}.{block}"] = torch.stack([trace.kept for trace in traces])
            tensors[f"source.{k}.{block}"] = torch.stack([trace.source for trace in traces])
            tensors[f"scores.{k}.{block}"] = torch.stack([trace.scores for trace in traces])
        guided = predicted[:1] + request.guidance_scale * (predicted[1:] - predicted[:1]) if rows == 2 else predicted
        x = x + derivative(scheduler, x, guided, sigma) * (following - sigma)
    tensors[f"latents.{request.steps - 1}"] = x
    tensors["image"] = vae.decode(x / vae.config.scaling_factor).sample.clamp(-1.0, 1.0)
    return tensors, pruner.margins


def f32_error(exact: Tensors, rounded: Tensors) -> float:
    """The largest relative L2 error of the f32 run; raises where a decision differs."""
    worst = 0.0
    for name, tensor in exact.items():
        if tensor.dtype == torch.int64:
            if not torch.equal(tensor, rounded[name]):
                raise ValueError(f"{name} differs between f64 and f32")
        else:
            worst = max(worst, ((rounded[name] - tensor).norm() / tensor.norm()).item())
    return worst


def is_clear(margins: Margins) -> bool:
    return min(margins.selection, margins.source) >= LEAST_MARGIN and margins.stop >= LEAST_STOP_MARGIN


def find_seed(name: str, spec: dict) -> tuple[Request, Tensors, Margins, float]:
    """The first seed whose every decision is clear: wide margins, and an f32 run that decides alike."""
    for seed in range(spec["request"].seed, spec["request"].seed + SEED_TRIES):
        request = replace(spec["request"], seed=seed)
        tensors, margins = run(load_pipeline(spec["model"]), request, spec["pruning"], torch.float64)
        if not is_clear(margins):
            continue
        error = f32_error(tensors, run(load_pipeline(spec["model"]), request, spec["pruning"], torch.float32)[0])
        if error > MAX_F32_ERROR:
            raise ValueError(f"{name}: f32 differs from f64 by {error:.2e}")
        return request, tensors, margins, error
    raise ValueError(f"{name}: no seed whose decisions are all clear")


def stored(tensors: Tensors, with_image: bool) -> Tensors:
    """f64 as f32, the image as bytes."""
    out = {name: t.float() if t.dtype == torch.float64 else t for name, t in tensors.items()}
    image = to_bytes(out.pop("image"))
    return out | {"image_u8": image} if with_image else out


def check_nothing_lost() -> None:
    """A ratio too small to remove a token takes the pruned path and must give diffusers' own result."""
    request = cases()["ratio-0"]["request"]
    plain, _ = run(load_pipeline("b"), request, uniform(0.0), torch.float64)
    kept_all, _ = run(load_pipeline("b"), request, uniform(1e-3, prune_after=[0, 2]), torch.float64)
    difference = max((plain[name] - kept_all[name]).abs().max().item() for name in plain)
    if difference > 1e-9:
        raise ValueError(f"the pruned path differs by {difference:.2e} from diffusers where it removes nothing")


def write_all(folder: Path = DATA_DIR / "atedm") -> None:
    check_nothing_lost()
    for name, spec in cases().items():
        request, tensors, margins, error = find_seed(name, spec)
        write_tensors(folder / f"{name}.safetensors", stored(tensors, name in WITH_IMAGE))
        facts = {
            "margins": {key: getattr(margins, key) for key in ("selection", "source", "stop")},
            "iterations": sorted(margins.iterations),
            "f32_error": error,
        }
        facts["margins"] = {key: value for key, value in facts["margins"].items() if value != float("inf")}
        whole = asdict(request) | {"pruning": spec["pruning"]}
        write_json(folder / f"{name}.json", {"model": spec["model"], "request": whole, **facts})
        print(f"{name}: seed {request.seed}, {facts}")
