"""Paths and small helpers that every oracle script shares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
)
from safetensors.torch import save_file
from transformers import CLIPTokenizerFast

from topologies import MODELS, Model

DATA_DIR = Path(__file__).resolve().parent.parent / "golden" / "data"
MODELS_DIR = DATA_DIR / "models"


def use_one_thread() -> None:
    """One thread: sums are added up in the same order on every machine."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


def model_named(name: str) -> Model:
    return next(model for model in MODELS if model.name == name)


def load_pipeline(name: str) -> StableDiffusionXLPipeline:
    return open_pipeline(MODELS_DIR / name, model_named(name).variant)


def open_pipeline(folder: Path, variant: str | None) -> StableDiffusionXLPipeline:
    """The whole pipeline from disk, in f32, with the fast tokenizers (see README, "Tokenizer")."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(
        folder,
        torch_dtype=torch.float32,
        variant=variant,
        add_watermarker=False,
        low_cpu_mem_usage=False,
    )
    pipeline.register_modules(
        tokenizer=CLIPTokenizerFast.from_pretrained(folder / "tokenizer"),
        tokenizer_2=CLIPTokenizerFast.from_pretrained(folder / "tokenizer_2"),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def scheduler_for(sampler: str, config: Any) -> Any:
    """diffusers' scheduler for one of our samplers, with what its class takes over of a scheduler's configuration."""
    if not sampler.startswith("dpmpp_2m"):
        kind = EulerAncestralDiscreteScheduler if sampler == "euler_ancestral" else EulerDiscreteScheduler
        return kind.from_config(config)
    named = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}
    if sampler.endswith("karras"):
        named["use_karras_sigmas"] = True
    return DPMSolverMultistepScheduler.from_config(config, **named)


def write_tensors(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, file)


def write_json(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(to_json(value) + "\n", encoding="utf-8")


def to_json(value: Any) -> str:
    """A list has one element per line and an object one member per line; deeper levels stay on their line."""
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
    members = (f"{json.dumps(key)}: {json.dumps(item, ensure_ascii=False)}" for key, item in value.items())
    return "{\n" + ",\n".join(members) + "\n}"
