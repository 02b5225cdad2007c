"""Writes a model in f16, in diffusers' directory layout as SDXL base uses it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel

from .architecture import SCHEDULER
from .layout import TOKENIZERS, write_index
from .text import TextEncoders


def _forget_origin(config: Path) -> None:
    """Removes from the config the folder that the part was loaded from; diffusers writes it there."""
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n")


def write_model(
    out: Path, tokenizers: Path, vae: AutoencoderKL, text: TextEncoders, unet: UNet2DConditionModel
) -> None:
    """Replaces the model's parts in the folder `out`; other files in it (the model card) stay."""
    out.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZERS if tokenizers != out else ():
        shutil.copytree(tokenizers / name, out / name, dirs_exist_ok=True)
    parts = {"vae": vae, "text_encoder": text.first, "text_encoder_2": text.second, "unet": unet}
    for name, module in parts.items():
        module.to("cpu", torch.float16).save_pretrained(out / name)
        _forget_origin(out / name / "config.json")
    EulerDiscreteScheduler(**SCHEDULER).save_pretrained(out / "scheduler")
    write_index(out, force_zeros=True)
