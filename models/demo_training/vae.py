"""Stage 1: the autoencoder.

A loss keeps its first three latent channels close to the picture's own colours, averaged over 8x8 pixels. Such latents
are smooth, which makes them easy to learn for a small diffusion model, and a linear map of them gives a preview of the
picture. The fourth channel is free: from it the decoder can restore edges that the averages do not determine.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn
from tqdm import tqdm

from . import checkpoint
from .architecture import LATENT_SCALE, VAE
from .data import pictures, random_scenes
from .optimizer import make_optimizers, optimize

ENCODER_STEPS = 300  # after these the latents stay as they are, and only the decoder learns
BATCH, SIZES = 16, (64, 96, 96, 128)  # pixels; edges look the same at every size, and small pictures are fast
DECODER_BATCH, DECODER_SIZES = 8, (64, 96, 128, 192)
RATE = 2e-3
ANCHOR = 0.3  # weight of the anchor, relative to the pictures' L1 loss
POSTERIOR = 0.1  # standard deviation of the latents' noise, before the scaling factor
CHECKPOINT_STEPS = 100


def anchor(batch: torch.Tensor) -> torch.Tensor:
    """The wanted values of the first three latent channels: the picture's averaged colours."""
    return F.avg_pool2d(batch, LATENT_SCALE)


def _gradients(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return batch.diff(dim=2), batch.diff(dim=3)


def _loss(vae: AutoencoderKL, batch: torch.Tensor, frozen: bool) -> torch.Tensor:
    with torch.set_grad_enabled(not frozen):
        posterior = vae.encode(batch).latent_dist
    noise = POSTERIOR * torch.randn_like(posterior.mean)
    decoded = vae.decode(posterior.mean + noise).sample
    loss = F.l1_loss(decoded, batch) + F.mse_loss(decoded, batch)
    for a, b in zip(_gradients(decoded), _gradients(batch)):
        loss = loss + 0.5 * F.l1_loss(a, b)
    if frozen:
        return loss
    off = posterior.mean[:, :3] - anchor(batch)
    spread = posterior.logvar - 2 * math.log(POSTERIOR)  # so that the encoder's variance is the one used here
    return loss + ANCHOR * off.square().mean() + 0.01 * posterior.mean[:, 3:].square().mean() + 1e-3 * spread.square().mean()


def _new_vae() -> AutoencoderKL:
    vae = AutoencoderKL(**VAE)
    for name, module in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):  # every residual branch starts at zero
            nn.init.zeros_(module.weight)
    return vae


def train(path: Path, steps: int, seed: int, device: torch.device, start: Path | None) -> AutoencoderKL:
    """Trains for `steps` steps in all. If a model folder `start` is given, training starts from its VAE, whose encoder
    stays as it is."""
    torch.manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(start / "vae", torch_dtype=torch.float32) if start else _new_vae()
    vae.to(device, memory_format=torch.channels_last)
    optimizers = make_optimizers(vae, RATE)
    done = 0
    if state := checkpoint.load(path):
        vae.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        done = state["step"]
    bar = tqdm(range(done, steps), desc="vae", initial=done, total=steps, mininterval=5)
    average = None
    for step in bar:
        rng = random.Random(f"{seed} vae {step}")
        torch.manual_seed(seed * 1_000_003 + step)
        frozen = start is not None or step >= ENCODER_STEPS
        size, count = (rng.choice(DECODER_SIZES), DECODER_BATCH) if frozen else (rng.choice(SIZES), BATCH)
        batch = pictures(random_scenes(rng, count), size, size).to(device, memory_format=torch.channels_last)
        loss = _loss(vae, batch, frozen)
        optimize(vae, optimizers, loss, RATE * min(1, (step + 1) / 50) * min(1, (1 - step / steps) / 0.7))
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        bar.set_postfix(loss=f"{average:.4f}")
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == steps:
            state = {"optimizers": [o.state_dict() for o in optimizers], "step": step + 1}
            checkpoint.save(path, {"model": vae.state_dict(), **state})
    return vae.eval()
