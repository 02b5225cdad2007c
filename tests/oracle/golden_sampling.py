"""Goldens of the scheduler tables and of PyTorch's CPU generator."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import EulerDiscreteScheduler

from common import DATA_DIR, scheduler_for, write_json, write_tensors
from topologies import SDXL_SCHEDULER

SCHEDULERS: dict[str, dict[str, Any]] = {
    "trailing": {"timestep_spacing": "trailing", "steps_offset": 0},
    "linspace": {"timestep_spacing": "linspace", "steps_offset": 0},
    "v-prediction": {"prediction_type": "v_prediction"},
    "sample": {"prediction_type": "sample"},
    "karras": {"use_karras_sigmas": True},
    "linear-betas": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "log-linear": {"interpolation_type": "log_linear"},
    "zero-snr": {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    "final-sigma-min": {"final_sigmas_type": "sigma_min"},
    "offset-0": {"steps_offset": 0},
}
STEPS = (1, 7, 20)
SDXL_STEPS = (1, 2, 3, 4, 7, 20, 30, 50, 150)

SAMPLERS = ("euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_karras")

# (class, options): what SDXL's scheduler is saved as when it has been made one of that class.
SAVED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    ("DDPMScheduler", {"variance_type": "fixed_large"}),
    ("DEISMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ("DPMSolverSinglestepScheduler", {"solver_order": 3, "solver_type": "heun"}),
    ("EulerAncestralDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True, "timestep_spacing": "trailing"}),
    ("KDPM2AncestralDiscreteScheduler", {}),
    ("KDPM2DiscreteScheduler", {"prediction_type": "v_prediction"}),
    ("PNDMScheduler", {"skip_prk_steps": True}),
    ("UniPCMultistepScheduler", {"solver_order": 3, "final_sigmas_type": "sigma_min"}),
)
# Written by hand: their libraries are not here.
ABSENT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("DPMSolverSDEScheduler", {"noise_sampler_seed": None, "timestep_spacing": "linspace"}),
    ("LMSDiscreteScheduler", {"use_karras_sigmas": True, "timestep_spacing": "leading"}),
)
TURBO = {**SDXL_SCHEDULER, "timestep_spacing": "trailing", "clip_sample": False, "skip_prk_steps": True}
MULTISTEP = {"_class_name": "DPMSolverMultistepScheduler", **SDXL_SCHEDULER, "final_sigmas_type": "sigma_min"}
# name: what the file says, with what numbers of steps
FILES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "turbo": ({"_class_name": "EulerAncestralDiscreteScheduler", **TURBO}, (1, 2, 3, 4)),
    "lightning": ({"_class_name": "EulerDiscreteScheduler", **TURBO}, (1, 2, 4)),
    "lightning-sample": ({"_class_name": "EulerDiscreteScheduler", **TURBO, "prediction_type": "sample"}, (1, 2)),
    "euler-at-final": ({**MULTISTEP, "euler_at_final": True}, (16,)),
    "higher-order-final": ({**MULTISTEP, "lower_order_final": False}, (5,)),
}

SEEDS = (0, 1, 42, 2**31, 2**32 + 5, 2**53 + 1, 2**63 - 1)
SIZES = (1, 2, 15, 16, 17, 31, 32, 100, 4 * 13 * 9)
LARGE = 16384
LARGE_EDGE = 32


def scheduler_case(name: str, changes: dict[str, Any], steps: int) -> dict[str, Any]:
    """Sigmas, timesteps, the initial scale, and one Euler step from fixed numbers."""
    config = {**SDXL_SCHEDULER, **changes}
    scheduler = EulerDiscreteScheduler(**config)
    scheduler.set_timesteps(steps)
    sample = torch.tensor([3.0, -2.0, 0.5, 0.0])
    prediction = torch.tensor([0.9, -0.3, 0.25, 1.0])
    scaled = scheduler.scale_model_input(sample, scheduler.timesteps[0])
    stepped = scheduler.step(prediction, scheduler.timesteps[0], sample).prev_sample
    return {
        "name": name,
        "config": config,
        "steps": steps,
        "sigmas": scheduler.sigmas.tolist(),
        "timesteps": scheduler.timesteps.tolist(),
        "init_noise_sigma": float(scheduler.init_noise_sigma),
        "first_step": {
            "sample": sample.tolist(),
            "scaled": scaled.tolist(),
            "prediction": prediction.tolist(),
            "result": stepped.tolist(),
        },
    }


def walk(scheduler: Any, sample: torch.Tensor, prediction: torch.Tensor, steps: int, **options: Any) -> dict[str, Any]:
    """Sigmas and timesteps, and the way of some numbers through all steps, of which the first three are kept. The
    prediction is larger and smaller by turns; `options` are those of a step."""
    scheduler.set_timesteps(steps)
    predictions = [prediction * (1 + 0.1 * (k % 3)) for k in range(steps)]
    results = []
    for timestep, each in zip(scheduler.timesteps, predictions):
        before = sample if not results else results[-1]
        scheduler.scale_model_input(before, timestep)
        results.append(scheduler.step(each, timestep, before, **options).prev_sample)
    return {
        "steps": steps,
        "sigmas": scheduler.sigmas.tolist(),
        "timesteps": scheduler.timesteps.tolist(),
        "sample": sample[:3].tolist(),
        "predictions": [each[:3].tolist() for each in predictions],
        "results": [result[:3].tolist() for result in results],
    }


def multistep_case(name: str, changes: dict[str, Any], karras: bool, steps: int) -> dict[str, Any]:
    """In this scheduler's own scale."""
    config, sampler = {**SDXL_SCHEDULER, **changes}, "dpmpp_2m_karras" if karras else "dpmpp_2m"
    scheduler = scheduler_for(sampler, config)
    way = walk(scheduler, torch.tensor([1.0, -0.6, 0.1]), torch.tensor([0.9, -0.3, 0.25]), steps)
    return {"name": name, "sampler": sampler, "config": config, **way}


def write_multistep(file: Path = DATA_DIR / "multistep.json") -> None:
    """Of the configurations that Euler's goldens have, those that mean something here."""
    changes = {"sdxl": {}, **{name: SCHEDULERS[name] for name in SCHEDULERS if name not in ("karras", "log-linear")}}
    write_json(file, [multistep_case(name, changes[name], karras, steps)
                      for name in changes for karras in (False, True) for steps in STEPS])


def ancestral_case(name: str, changes: dict[str, Any], steps: int) -> dict[str, Any]:
    config = {**SDXL_SCHEDULER, **changes}
    return {"name": name, "config": config, **noisy_walk("euler_ancestral", config, steps)}


def noisy_walk(sampler: str, config: Any, steps: int, seed: int = 42) -> dict[str, Any]:
    """Of 16 numbers, with the noise of a generator of this seed."""
    scheduler = scheduler_for(sampler, config)
    generator, numbers = torch.Generator("cpu").manual_seed(seed), torch.arange(16)
    way = walk(scheduler, 3.0 - numbers, 0.9 - 0.3 * numbers, steps, generator=generator)
    return {"seed": seed, "init_noise_sigma": float(scheduler.init_noise_sigma), **way}


def write_ancestral(file: Path = DATA_DIR / "ancestral.json") -> None:
    """It has no prediction of samples."""
    changes = {"sdxl": {}, **{name: SCHEDULERS[name] for name in SCHEDULERS if name != "sample"}}
    write_json(file, [ancestral_case(name, changes[name], steps) for name in changes for steps in STEPS])


def file_case(name: str, text: str, steps: tuple[int, ...]) -> dict[str, Any]:
    """What each of our samplers makes of a scheduler_config.json, read from disk by the class that it names."""
    contents = json.loads(text)
    kind = getattr(diffusers, contents["_class_name"])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "scheduler_config.json").write_text(text, encoding="utf-8")
        config = contents if kind.__name__ in dict(ABSENT) else kind.from_pretrained(folder).config
    # EulerAncestralDiscreteScheduler has no prediction of samples.
    samplers = [name for name in SAMPLERS if name != "euler_ancestral" or config["prediction_type"] != "sample"]
    ways = [{"sampler": sampler, **noisy_walk(sampler, config, n)} for sampler in samplers for n in steps]
    return {"name": name, "file": text, "ways": ways}


def saved_text(name: str, options: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        getattr(diffusers, name).from_config({**SDXL_SCHEDULER, **options}).save_pretrained(folder)
        return Path(folder, "scheduler_config.json").read_text(encoding="utf-8")


def write_classes(file: Path = DATA_DIR / "scheduler_files.json") -> None:
    """A file of each class that says all, and one that leaves what it can to defaults: those of whose class?"""
    cases = [file_case(name, saved_text(name, options), (4,)) for name, options in SAVED]
    cases += [file_case(name, json.dumps({"_class_name": name, **SDXL_SCHEDULER, **options}), (4,)) for name, options in ABSENT]
    for name, _ in SAVED + ABSENT:
        sparse = {"_class_name": name, "prediction_type": "epsilon"}
        cases.append(file_case(f"{name}, sparse", json.dumps(sparse), (3,)))
    cases += [file_case(name, json.dumps(contents), steps) for name, (contents, steps) in FILES.items()]
    write_json(file, cases)


def write_schedulers(file: Path = DATA_DIR / "schedulers.json") -> None:
    cases = [scheduler_case("sdxl", {}, steps) for steps in SDXL_STEPS]
    cases += [scheduler_case(name, changes, steps) for name, changes in SCHEDULERS.items() for steps in STEPS]
    write_json(file, cases)


def randn(seed: int, size: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed))


def write_rng(folder: Path = DATA_DIR) -> None:
    """All values of the small sizes; of the large one both ends and the SHA-256 of its bytes."""
    tensors: dict[str, torch.Tensor] = {}
    digests: dict[str, str] = {}
    for seed in SEEDS:
        tensors |= {f"randn.{seed}.{size}": randn(seed, size) for size in SIZES}
        large = randn(seed, LARGE)
        tensors[f"randn.{seed}.{LARGE}.first"] = large[:LARGE_EDGE]
        tensors[f"randn.{seed}.{LARGE}.last"] = large[-LARGE_EDGE:]
        digests[f"randn.{seed}.{LARGE}"] = hashlib.sha256(large.numpy().tobytes()).hexdigest()
    write_tensors(folder / "rng.safetensors", tensors)
    capability = torch.backends.cpu.get_cpu_capability()
    write_json(folder / "rng.json", {"cpu_capability": capability, "sha256": digests})


def write_all() -> None:
    write_schedulers()
    write_multistep()
    write_ancestral()
    write_classes()
    write_rng()
