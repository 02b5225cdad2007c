"""Goldens of the scheduler tables and of PyTorch's CPU generator."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler

from common import DATA_DIR, write_json, write_tensors
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
    config = {**SDXL_SCHEDULER, **changes}
    scheduler = DPMSolverMultistepScheduler.from_config({**config, "use_karras_sigmas": karras})
    way = walk(scheduler, torch.tensor([1.0, -0.6, 0.1]), torch.tensor([0.9, -0.3, 0.25]), steps)
    return {"name": name, "sampler": "dpmpp_2m_karras" if karras else "dpmpp_2m", "config": config, **way}


def write_multistep(file: Path = DATA_DIR / "multistep.json") -> None:
    """Of the configurations that Euler's goldens have, those that mean something here."""
    changes = {"sdxl": {}, **{name: SCHEDULERS[name] for name in SCHEDULERS if name not in ("karras", "log-linear")}}
    write_json(file, [multistep_case(name, changes[name], karras, steps)
                      for name in changes for karras in (False, True) for steps in STEPS])


def ancestral_case(name: str, changes: dict[str, Any], steps: int) -> dict[str, Any]:
    """Of 16 numbers, with the noise of a generator of this seed."""
    config, seed = {**SDXL_SCHEDULER, **changes}, 42
    scheduler = EulerAncestralDiscreteScheduler.from_config(config)
    generator, numbers = torch.Generator("cpu").manual_seed(seed), torch.arange(16)
    way = walk(scheduler, 3.0 - numbers, 0.9 - 0.3 * numbers, steps, generator=generator)
    return {"name": name, "config": config, "seed": seed, "init_noise_sigma": float(scheduler.init_noise_sigma), **way}


def write_ancestral(file: Path = DATA_DIR / "ancestral.json") -> None:
    """It has no prediction of samples."""
    changes = {"sdxl": {}, **{name: SCHEDULERS[name] for name in SCHEDULERS if name != "sample"}}
    write_json(file, [ancestral_case(name, changes[name], steps) for name in changes for steps in STEPS])


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
    write_rng()
