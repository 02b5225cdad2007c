"""Samples pictures from the model during training, to see its progress. The pipeline is that of diffusers."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from demo_world.caption import caption
from demo_world.scene import random_scene
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from PIL import Image

from .architecture import LATENT_SCALE, SCHEDULER
from .text import TextEncoders


@torch.no_grad()
def sample(
    unet: UNet2DConditionModel, text: TextEncoders, vae: AutoencoderKL, prompts: list[str],
    width: int, height: int, steps: int = 20, guidance: float = 4.0, seed: int = 1,
) -> np.ndarray:  # fmt: skip
    """Pictures for the prompts, u8 [n, height, width, 3]."""
    device = next(unet.parameters()).device
    hidden, pooled = text(prompts)
    hidden = torch.cat([torch.zeros_like(hidden), hidden])
    pooled = torch.cat([torch.zeros_like(pooled), pooled])
    ids = torch.tensor([[height, width, 0, 0, height, width]], device=device, dtype=torch.float32)
    added = {"text_embeds": pooled, "time_ids": ids.expand(len(pooled), -1)}
    scheduler = EulerDiscreteScheduler(**SCHEDULER)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(prompts), 4, height // LATENT_SCALE, width // LATENT_SCALE)
    x = torch.randn(shape, generator=generator).to(device) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(torch.cat([x, x]), t)
        out = unet(scaled, t.to(device), hidden, added_cond_kwargs=added, return_dict=False)[0]
        negative, positive = out.chunk(2)
        x = scheduler.step(negative + guidance * (positive - negative), t, x).prev_sample
    image = vae.decode(x / vae.config.scaling_factor).sample
    return ((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def contact_sheet(pictures: np.ndarray, columns: int) -> Image.Image:
    rows = [np.concatenate(list(pictures[i : i + columns]), axis=1) for i in range(0, len(pictures), columns)]
    return Image.fromarray(np.concatenate(rows, axis=0))


def look(unet, text, vae, file: Path, size: int) -> None:
    """Writes a sheet of 16 pictures from fixed prompts. Eight show one object, four of them a held-out pair of colour and
    shape; eight show two objects."""
    rng = random.Random("look")
    scenes = [random_scene(rng, 1, held_out=i % 2 == 1) for i in range(8)] + [random_scene(rng, 2) for _ in range(8)]
    prompts = [caption(scene, rng) for scene in scenes]
    contact_sheet(sample(unet, text, vae, prompts, size, size), 8).save(file)
