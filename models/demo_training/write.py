"""Writes a model in diffusers' directory layout, as SDXL base has it, in f16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel

from .architecture import SCHEDULER
from .text import TextEncoders

_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.35.2",
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_model(
    out: Path, tokenizers: Path, vae: AutoencoderKL, text: TextEncoders, unet: UNet2DConditionModel
) -> None:
    """Replaces the folder's parts; other files in it (the model card) stay."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer", "tokenizer_2") if tokenizers != out else ():
        shutil.copytree(tokenizers / name, out / name, dirs_exist_ok=True)
    parts = {"vae": vae, "text_encoder": text.first, "text_encoder_2": text.second, "unet": unet}
    for name, module in parts.items():
        module.to("cpu", torch.float16).save_pretrained(out / name)
    EulerDiscreteScheduler(**SCHEDULER).save_pretrained(out / "scheduler")
    (out / "model_index.json").write_text(json.dumps(_INDEX, indent=2) + "\n", encoding="utf-8")
