"""Holds `atedm generate` against diffusers on random models of SDXL's topology, stage by stage.

Each seed draws a model (architecture, weights, files), a scheduler configuration and a request; a share of them is
pruned and held against atedm_oracle.py. Prints the first stage that differs; exit status 1 if one did.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import load_file

import golden_atedm
from common import open_pipeline, scheduler_for, use_one_thread
from golden_pipeline import Request, run
from golden_sampling import SAMPLERS, SAVED, saved_text
from make_models import add_position_ids, write_model
from topologies import VOCABULARY_TEXT, Config, Model, TextEncoder, unet_config

Tensors = dict[str, torch.Tensor]
Outcome = tuple[str, str]  # one of those below, and in what

AGREES, DIFFERS, SKIPPED = "agrees", "DIFFERS", "skipped"

ATEDM = Path(__file__).resolve().parents[2] / "build/cli/atedm"
CLASSES = [name for name, _ in SAVED]
DTYPES = ("float16", "bfloat16", "float32")
ACTIVATIONS = ("quick_gelu", "gelu")
WORDS = [*VOCABULARY_TEXT.split(), "!", "<|endoftext|>", "<|startoftext|>", "zebra", "ÅNGSTRÖM", "🦊", "3.14", "…", "\n"]

# See README, "Tolerances".
BOUND, BOUND_SIGMAS = 1e-4, 1e-5
LEAST_PSNR = 60.0
# Where rounding alone goes further than that, step by step: how many times as far from float64 as diffusers in f32.
FACTOR = 10.0
PRUNED_SHARE = 0.4
CLEAR_TRIES = 6


@dataclass(frozen=True)
class Case:
    """What a seed draws."""

    model: Model
    scheduler: str  # the text of scheduler_config.json
    request: Request
    pruning: Config | None
    position_ids: bool
    backend: str


def multiple_of(rng: random.Random, unit: int, least: int, most: int) -> int:
    return unit * rng.randint(-(-least // unit), max(-(-least // unit), most // unit))


def draw_text_encoder(rng: random.Random) -> TextEncoder:
    heads = rng.randint(1, 4)
    return TextEncoder(
        width=multiple_of(rng, heads, 8, 40),
        layers=rng.randint(2, 5),
        heads=heads,
        feed_forward=rng.randint(8, 96),
        activation=rng.choice(ACTIVATIONS),
        projection=rng.randint(4, 40),
        eos_token_id=rng.choice((2, 2, None, 5)),
    )


def draw_attention(rng: random.Random, levels: int) -> Config:
    """Which levels attend, and what SDXL's own files say no otherwise."""
    attends = [rng.random() < 0.6 for _ in range(levels)]
    return {
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        "norm_eps": rng.choice((1e-5, 1e-5, 1e-6, 1e-3)),
    }


def draw_widths(rng: random.Random, levels: int, groups: int, heads: list[int]) -> tuple[int, ...]:
    """Multiples of the groups and of each level's heads; the first is even, and has room for the latent's way through
    (make_models.carry_latent_through)."""
    units = [math.lcm(groups, heads[level], 2 if level == 0 else 1) for level in range(levels)]
    widths = [multiple_of(rng, unit, 8, 56) for unit in units]
    if rng.random() < 0.1:
        widths[-1] = 64 * heads[-1]  # heads of SDXL's size, for which backends have code of their own
    return tuple(widths)


def draw_model(rng: random.Random, seed: int) -> Model:
    levels, groups = rng.choice((1, 2, 2, 3, 3, 3, 4)), rng.choice((1, 2, 4, 8))
    same_heads = rng.random() < 0.3
    heads = [rng.randint(1, 5)] * levels if same_heads else [rng.randint(1, 5) for _ in range(levels)]
    vae_levels, vae_groups = rng.choice((1, 2, 3, 4, 4, 4, 5)), rng.choice((1, 2, 4))
    same_layers = rng.random() < 0.3
    components = ("unet", "vae", "text_encoder", "text_encoder_2")
    return Model(
        name=f"random-{seed}",
        seed=seed,
        widths=draw_widths(rng, levels, groups, heads),
        transformer_layers=rng.randint(1, 3) if same_layers else tuple(rng.randint(1, 3) for _ in range(levels)),
        heads=heads[0] if same_heads else tuple(heads),
        layers_per_block=rng.randint(1, 3),
        norm_groups=groups,
        use_linear_projection=rng.random() < 0.6,
        time_ids_width=2 * rng.randint(1, 16),
        text_1=draw_text_encoder(rng),
        text_2=draw_text_encoder(rng),
        vae_widths=tuple(multiple_of(rng, vae_groups, 4, 20) for _ in range(vae_levels)),
        vae_layers=rng.randint(1, 3),
        vae_norm_groups=vae_groups,
        vae_quant_conv=rng.random() < 0.6,
        force_zeros=rng.random() < 0.5,
        merges=rng.randint(0, 320),
        dtypes={component: rng.choice(DTYPES) for component in components},
        variant=rng.choice((None, None, "fp16")),
        shard_sizes={component: rng.choice(("60KB", "300KB")) for component in components if rng.random() < 0.3},
        changes={
            "unet": draw_attention(rng, levels),
            "vae": {
                "scaling_factor": rng.choice((0.13025, 0.18215, rng.uniform(0.1, 1.5))),
                "mid_block_add_attention": rng.random() < 0.8,
                "use_quant_conv": rng.random() < 0.6,
            },
            "text_encoder": {"layer_norm_eps": rng.choice((1e-5, 1e-6))},
            "text_encoder_2": {"layer_norm_eps": rng.choice((1e-5, 1e-6))},
        },
    )


def draw_scheduler(rng: random.Random) -> str:
    """A file of any class, as diffusers saves it or with few keys."""
    options: Config = {
        "num_train_timesteps": rng.choice((1000, 1000, 1000, 400)),
        "prediction_type": rng.choice(("epsilon", "epsilon", "epsilon", "v_prediction", "v_prediction", "sample")),
        "timestep_spacing": rng.choice(("leading", "trailing", "linspace")),
        "steps_offset": rng.randint(0, 1),
    }
    rare: Config = {
        "use_karras_sigmas": True,
        "rescale_betas_zero_snr": True,
        "beta_schedule": "squaredcos_cap_v2",
        "final_sigmas_type": "sigma_min",
        "interpolation_type": "log_linear",
        "euler_at_final": True,
        "lower_order_final": False,
    }
    options |= {key: value for key, value in rare.items() if rng.random() < 0.12}
    name = rng.choice(CLASSES)
    if rng.random() < 0.7:
        return saved_text(name, options)
    scaled = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    kept = {key: value for key, value in (scaled | options).items() if rng.random() < 0.7}
    return json.dumps({"_class_name": name, **kept})


def draw_text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.choice((1, 5, 12, 30, 130))))


def draw_request(rng: random.Random, model: Model) -> Request:
    scale = 2 ** (len(model.vae_widths) - 1)
    unit = math.lcm(8, scale)
    largest = 40 if rng.random() < 0.1 else 14
    return Request(
        prompt=draw_text(rng),
        negative_prompt=rng.choice((None, "", draw_text(rng))),
        width=multiple_of(rng, unit, 3 * scale, largest * scale),
        height=multiple_of(rng, unit, 3 * scale, largest * scale),
        steps=rng.choice((1, 2, 3, 4, 5, 16)),
        guidance_scale=rng.choice((0.0, 1.0, 7.0, rng.uniform(1.1, 12.0), rng.uniform(1.1, 12.0))),
        seed=rng.choice((rng.randrange(1000), rng.randrange(2**62))),
        num_images=rng.choice((1, 1, 2, 3)),
        sampler=rng.choice(SAMPLERS),
    )


def draw_phases(rng: random.Random) -> Config:
    kind = rng.choice(("uniform", "dsap", "phases"))
    if kind == "uniform":
        return {"ratio": rng.uniform(0.0, 0.95), "schedule": "uniform"}
    if kind == "dsap":
        return {"ratio": rng.uniform(0.0, 0.95), "schedule": "dsap", "tau": rng.choice((0.0, 0.3, 0.5, 1.0))}
    ends = sorted({round(rng.uniform(0.05, 0.95), 2) for _ in range(rng.randint(0, 2))}) + [1.0]
    skips = ("down.first", "up.last", "mid")
    return {
        "phases": [
            {
                "until": end,
                "ratio": rng.choice((0.0, 0.3, rng.uniform(0.0, 0.95))),
                "skip": rng.sample(skips, rng.randint(0, 2)),
            }
            for end in ends
        ]
    }


def draw_pruning(rng: random.Random) -> Config:
    after = sorted(rng.sample(range(3), rng.choice((1, 1, 1, 2, 3))))
    score: Config = {
        "map": rng.choice(("self", "self", "cross")),
        "heads": rng.choice(("rms", "mean")),
        "max_iterations": rng.choice((1, 2, 8, 30)),
        "tolerance": rng.choice((0.0, 1e-3, 0.05)),
    }
    if len(after) == 1:
        score["interval"] = rng.choice((1, 1, 2, 3))
    return {
        **draw_phases(rng),
        "skip_levels": sorted(rng.sample(range(4), rng.choice((0, 0, 1)))),
        "prune_after": after,
        "score": score,
        "selection": rng.choice(("sampled", "top")),
        "recovery": rng.choice(("attention", "cosine", "nearest", "zero")),
        "copy": rng.choice(("update", "value")),
        "proportional_attention": rng.random() < 0.5,
        "masks": rng.choice(("shared", "own")),
    }


def draw(seed: int, backend: str | None) -> Case:
    rng = random.Random(seed)
    model = draw_model(rng, seed)
    request, scheduler = draw_request(rng, model), draw_scheduler(rng)
    samples = json.loads(scheduler).get("prediction_type") == "sample"
    if samples and request.sampler == "euler_ancestral":  # diffusers' has no prediction of samples
        request = replace(request, sampler="euler")
    case = Case(
        model=model,
        scheduler=scheduler,
        request=request,
        pruning=draw_pruning(rng) if rng.random() < PRUNED_SHARE and not samples else None,
        position_ids=rng.random() < 0.2,
        backend=backend or rng.choice(("ref", "cpu")),
    )
    if case.pruning is None:
        return case
    # The oracle walks one picture, by Euler's steps.
    steps = min(request.steps, 5)
    return replace(case, request=replace(request, sampler="euler", num_images=1, steps=steps))


def write(case: Case, folder: Path) -> None:
    write_model(case.model, folder)
    (folder / "scheduler/scheduler_config.json").write_text(case.scheduler, encoding="utf-8")
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    index["scheduler"][1] = json.loads(case.scheduler)["_class_name"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    if case.position_ids and "text_encoder" not in case.model.shard_sizes:
        middle = "" if case.model.variant is None else f".{case.model.variant}"
        add_position_ids(folder / f"text_encoder/model{middle}.safetensors")


def ours(case: Case, request: Request, folder: Path, atedm: Path) -> Tensors:
    """Every intermediate that `atedm generate` dumps; RuntimeError where it refuses."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            *(atedm, "generate", "--model", folder, "--backend", case.backend, "--dtype", "f32", "--dump", out),
            *("-o", f"{out}/image.png", f"--prompt={request.prompt}", "--width", request.width),
            *("--height", request.height, "--steps", request.steps, "--guidance-scale", request.guidance_scale),
            *("--seed", request.seed, "--num-images", request.num_images, "--sampler", request.sampler),
            *("--pruning", json.dumps(case.pruning) if case.pruning else "off"),
        ]
        if request.negative_prompt is not None:
            command.append(f"--negative-prompt={request.negative_prompt}")
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"atedm ends with {result.returncode}: {result.stderr.strip()}")
        tensors = load_file(f"{out}/stages.safetensors")
    if request.num_images > 1:
        tensors["image"] = torch.cat([tensors.pop(f"image.{i}") for i in range(request.num_images)])
    return tensors


def without_idle(tensors: Tensors) -> Tensors:
    """Leaves out what was decided in blocks that lost no token: there we decide nothing."""
    kept = {name: tensor.shape[1] for name, tensor in tensors.items() if name.startswith("kept.")}
    idle = {name.partition(".")[2] for name, n in kept.items() if n == tensors[f"source{name[4:]}"].shape[1]}
    kinds = ("kept", "source", "scores")
    return {name: t for name, t in tensors.items() if not (name.startswith(kinds) and name.partition(".")[2] in idle)}


def reference(case: Case, request: Request, folder: Path, dtype: torch.dtype) -> Tensors:
    """diffusers' way, or the oracle's where it is pruned."""
    pipeline = open_pipeline(folder, case.model.variant)
    pipeline.scheduler = scheduler_for(request.sampler, pipeline.scheduler.config)
    if case.pruning:
        return without_idle(golden_atedm.run(pipeline, request, case.pruning, dtype)[0])
    tensors = run(pipeline, request, dtype)
    # With sigmas interpolated in the logarithm it has one more, where no step gets.
    return tensors | {"sigmas": tensors["sigmas"][: request.steps + 1]}


def clear_request(case: Case, folder: Path) -> Request | None:
    """The request with the first seed whose every decision is clear, if there is one."""
    for seed in range(case.request.seed, case.request.seed + CLEAR_TRIES):
        request = replace(case.request, seed=seed)
        pipeline = open_pipeline(folder, case.model.variant)
        pipeline.scheduler = scheduler_for("euler", pipeline.scheduler.config)
        if golden_atedm.is_clear(golden_atedm.run(pipeline, request, case.pruning, torch.float64)[1]):
            return request
    return None


BEFORE_STEPS = (
    *("tokens", "tokens_2", "prompt_embeds", "pooled_prompt_embeds"),
    *("add_time_ids", "sigmas", "timesteps", "latents_init"),
)
OF_A_STEP = ("scores", "kept", "source", "noise_pred", "latents")


def stage(name: str) -> tuple[float, int]:
    """Where a tensor comes in a request: step, place in it."""
    if name in BEFORE_STEPS:
        return (-1, BEFORE_STEPS.index(name))
    if name == "image":
        return (math.inf, 0)
    kind, step = name.split(".")[:2]
    return (int(step), OF_A_STEP.index(kind))


def bound_of(name: str) -> float:
    return BOUND_SIGMAS if name in ("sigmas", "timesteps") else BOUND


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative L2; infinite where shapes differ or something is no number."""
    if a.shape != b.shape:
        return math.inf
    a, b = a.double(), b.double()
    error = ((a - b).norm() / b.norm().clamp(min=1e-30)).item()
    return error if math.isfinite(error) else math.inf


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of pictures in -1..1."""
    mean_square = (a.double() - b.double()).square().mean().item()
    return math.inf if mean_square == 0 else 10 * math.log10(4 / mean_square)


def differs(name: str, got: torch.Tensor, wanted: torch.Tensor) -> str | None:
    if not wanted.is_floating_point():
        return None if torch.equal(got, wanted) else "differs"
    error = distance(got, wanted)
    if not error <= bound_of(name):
        return f"{error:.2e} off, bound {bound_of(name):.0e}"
    if name == "image" and not psnr(got, wanted) >= LEAST_PSNR:
        return f"{psnr(got, wanted):.1f} dB"
    return None


def is_rounding(name: str, got: torch.Tensor, precisions: Callable[[], tuple[Tensors, Tensors]]) -> bool:
    """Whether f32 alone takes the reference as far from float64."""
    rounded, exact = precisions()
    if not got.is_floating_point():
        return bool(name in exact and not torch.equal(rounded[name], exact[name]))
    return distance(got, exact[name]) <= FACTOR * distance(rounded[name], exact[name])


def are_last_bits(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Of sigmas: a sigma is the root of 1 / alpha_bar - 1, and schedules have alpha_bar in f32."""
    one, other = (1 / (1 + sigmas.double().square()) for sigmas in (got, wanted))
    return bool((one - other).abs().max() <= 2**-22)


def compare(got: Tensors, wanted: Tensors, precisions: Callable[[], tuple[Tensors, Tensors]]) -> Outcome:
    """With the first difference, or the largest."""
    missing = sorted(set(wanted) - set(got), key=stage)
    if missing:
        return DIFFERS, f"{missing} not there"
    worst, remark = 0.0, ""
    for name in sorted(wanted, key=stage):
        fault = differs(name, got[name], wanted[name])
        if fault and name == "sigmas" and are_last_bits(got[name], wanted[name]):
            return SKIPPED, f"sigmas of last bits, {fault}"
        if fault and not is_rounding(name, got[name], precisions):
            return DIFFERS, f"{name}: {fault}"
        if fault:
            remark = f", {name} {fault}, as f32 is from f64"
            if not wanted[name].is_floating_point():
                break  # a decision that f32 takes otherwise: nothing after it is comparable
        elif wanted[name].is_floating_point():
            worst = max(worst, distance(got[name], wanted[name]))
    return AGREES, f"worst {worst:.1e}{remark}"


def run_seed(case: Case, folder: Path, atedm: Path) -> Outcome:
    write(case, folder)
    request = clear_request(case, folder) if case.pruning else case.request
    if request is None:
        return SKIPPED, "no clear decisions"
    try:
        got = ours(case, request, folder, atedm)
    except RuntimeError as error:
        return DIFFERS, str(error)
    try:
        wanted = reference(case, request, folder, torch.float64 if case.pruning else torch.float32)
    except IndexError as error:
        # Where its first two timesteps are equal DPMSolverMultistepScheduler begins with the second.
        return SKIPPED, f"diffusers fails: {error}"

    def precisions() -> tuple[Tensors, Tensors]:
        other = reference(case, request, folder, torch.float32 if case.pruning else torch.float64)
        return (other, wanted) if case.pruning else (wanted, other)

    return compare(got, wanted, precisions)


def summary(case: Case) -> str:
    model, request = case.model, case.request
    unet = unet_config(model)
    attention = "".join("A" if kind.startswith("Cross") else "-" for kind in unet["down_block_types"])
    scheduler = json.loads(case.scheduler)
    return (
        f"{case.backend} {model.widths} {attention} {request.width}x{request.height} {request.sampler} x{request.steps}"
        f" {scheduler['_class_name']}{' pruned' if case.pruning else ''}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=1, help="first seed")
    parser.add_argument("--count", type=int, default=100, help="number of seeds")
    parser.add_argument("--atedm", type=Path, default=ATEDM, help="the program")
    parser.add_argument("--backend", help="ref, cpu or cuda; by itself one of the first two, by seed")
    parser.add_argument("--keep", type=Path, help="folder that keeps the models that differ")
    args = parser.parse_args()
    use_one_thread()
    for library in (diffusers, transformers):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
    seeds: dict[str, list[int]] = {AGREES: [], DIFFERS: [], SKIPPED: []}
    for seed in range(args.first, args.first + args.count):
        case = draw(seed, args.backend)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / case.model.name
            outcome, remark = run_seed(case, folder, args.atedm)
            if outcome == DIFFERS and args.keep:
                shutil.copytree(folder, args.keep / case.model.name, dirs_exist_ok=True)
        print(f"{outcome} {seed}: {summary(case)}: {remark}", flush=True)
        if outcome == DIFFERS:
            print(f"  {case.request}\n  {case.pruning}\n  {case.scheduler.split()}", flush=True)
        seeds[outcome].append(seed)
    print(", ".join(f"{len(which)} {outcome}" for outcome, which in seeds.items()))
    if seeds[DIFFERS]:
        sys.exit(f"{DIFFERS}: {seeds[DIFFERS]}")


if __name__ == "__main__":
    main()
