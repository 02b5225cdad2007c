"""Stage 3: the UNet, trained on latents that are computed once and kept in memory.

Training begins with small pictures: at 128x128 a step costs a quarter, and the network learns there what words mean for
colours, shapes and places. The native size follows. Last comes a mixture with other sizes, so that requests for other sizes
give sensible pictures too.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from demo_world.caption import training_caption
from demo_world.scene import Scene
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from torch import nn
from tqdm import tqdm

from . import checkpoint
from .architecture import NATIVE_SIZE, SCHEDULER, UNET, VAE
from .attention import gathering_loss, record_maps
from .data import pictures, random_scenes
from .evenness import record_blocks, unevenness
from .optimizer import make_optimizers, optimize
from .text import TextEncoders
from .tokens import tokens_of_levels

RATE = 1.5e-3
WARM_UP = 100  # steps
DECAY = 0.35  # share of the steps, at the end, over which the rate falls to 0
EMA = 0.998
DROPPED = 0.1  # share of samples whose embeddings are zeros, as the pipeline uses them for an absent negative prompt
EMPTY = 0.02  # share of samples with the encoded empty prompt
# At its last timestep SDXL's schedule leaves a little of the picture, but sampling starts from noise alone. So from this
# timestep on, half of the samples are noise alone: the network must not rely on the rest of the picture there.
BLIND_FROM, BLIND = 900, 0.5
GATHERING = 0.03  # weight of the loss in attention.py
EVENNESS = 1.0  # weight of the loss in evenness.py
CHECKPOINT_STEPS = 250
ENCODED = 32  # pictures that the VAE encodes at a time


@dataclass(frozen=True)
class Bucket:
    """Pictures of one size."""

    width: int
    height: int
    batch: int
    scenes: int  # number of different scenes
    share: float = 1.0  # share of the phase's steps


@dataclass(frozen=True)
class Phase:
    steps: int
    buckets: tuple[Bucket, ...]


OTHER_SIZES = (  # the sizes of the last phase in addition to the native one
    Bucket(192, 192, 32, 600, 0.05),
    Bucket(256, 192, 32, 600, 0.04),
    Bucket(192, 256, 32, 600, 0.04),
    Bucket(320, 320, 20, 400, 0.05),
    Bucket(384, 256, 20, 400, 0.05),
    Bucket(256, 384, 20, 400, 0.05),
    Bucket(384, 384, 14, 300, 0.05),
    Bucket(512, 512, 8, 200, 0.05),
)


def phases(small: int, native: int, mixed: int) -> list[Phase]:
    """The three phases, with these numbers of steps."""
    return [
        Phase(small, (Bucket(NATIVE_SIZE // 2, NATIVE_SIZE // 2, 64, 20_000),)),
        Phase(native, (Bucket(NATIVE_SIZE, NATIVE_SIZE, 32, 5_000),)),
        Phase(mixed, (Bucket(NATIVE_SIZE, NATIVE_SIZE, 32, 5_000, 0.62), *OTHER_SIZES)),
    ]


class Latents:
    """The latents of a bucket's scenes, scaled for the UNet. They are computed once and kept in the file `path`."""

    def __init__(self, bucket: Bucket, vae: AutoencoderKL, seed: int, path: Path) -> None:
        rng = random.Random(f"{seed} latents {bucket.width}x{bucket.height}")
        self.bucket = bucket
        self.scenes: list[Scene] = random_scenes(rng, bucket.scenes)
        if (saved := checkpoint.load(path)) is None or len(saved) != bucket.scenes:
            saved = self._encode(vae)
            checkpoint.save(path, saved)
        self.latents = saved

    @torch.no_grad()
    def _encode(self, vae: AutoencoderKL) -> torch.Tensor:
        parts, device = [], next(vae.parameters()).device
        width, height = self.bucket.width, self.bucket.height
        for at in tqdm(range(0, len(self.scenes), ENCODED), desc=f"latents {width}x{height}", mininterval=5):
            batch = pictures(self.scenes[at : at + ENCODED], width, height).to(device)
            parts.append((vae.encode(batch).latent_dist.mean * VAE["scaling_factor"]).half().cpu())
        return torch.cat(parts)

    def batch(self, rng: random.Random) -> tuple[torch.Tensor, list[Scene]]:
        chosen = rng.sample(range(len(self.scenes)), self.bucket.batch)
        return self.latents[chosen].float(), [self.scenes[i] for i in chosen]


def new_unet() -> UNet2DConditionModel:
    """A UNet with random weights. Every residual branch starts at zero, so at first the network is a short path."""
    unet = UNet2DConditionModel(**UNET)
    for name, module in unet.named_modules():
        if name.endswith(("conv2", "to_out.0", "ff.net.2", "proj_out", "conv_out")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return unet


class Trainer:
    def __init__(
        self, text: TextEncoders, device: torch.device, half: bool, seed: int, start: Path | None
    ) -> None:
        """Starts from the UNet of the model folder `start`, or from random weights."""
        torch.manual_seed(seed)
        self.text, self.device, self.half, self.seed = text.to(device), device, half, seed
        unet = new_unet()
        if start:  # layers that this UNet lacks stay as new_unet made them
            before = UNet2DConditionModel.from_pretrained(start / "unet", torch_dtype=torch.float32)
            unet.load_state_dict(before.state_dict(), strict=False)
        self.unet = unet.to(device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.unet).eval()
        self.maps, self.blocks = record_maps(self.unet), record_blocks(self.unet)
        self.optimizers = make_optimizers(self.unet, RATE)
        self.alphas = EulerDiscreteScheduler(**SCHEDULER).alphas_cumprod.to(device)
        self.done = 0

    def state(self) -> dict:
        return {
            "model": self.unet.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.done,
        }

    def load(self, state: dict) -> None:
        self.unet.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.done = state["step"]

    @torch.no_grad()
    def condition(self, scenes: list[Scene], rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
        captions = ["" if rng.random() < EMPTY else training_caption(scene, rng) for scene in scenes]
        hidden, pooled = self.text(captions)
        kept = torch.tensor([float(rng.random() >= DROPPED) for _ in scenes], device=self.device)
        return hidden * kept[:, None, None], pooled * kept[:, None]

    def loss(
        self, latents: torch.Tensor, scenes: list[Scene], size: tuple[int, int], rng: random.Random
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The losses of the prediction, of the attention maps and of the blocks' evenness."""
        hidden, pooled = self.condition(scenes, rng)
        count = len(scenes)
        x = latents.to(self.device, memory_format=torch.channels_last)
        # The timesteps of a batch are spread evenly, which reduces noise in the gradient.
        spread = (torch.randperm(count) + torch.rand(count)) / count
        timesteps = (spread * len(self.alphas)).long().to(self.device)
        noise = torch.randn_like(x)
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        blind = (timesteps >= BLIND_FROM) & (torch.rand(count, device=self.device) < BLIND)
        noisy = torch.where(blind.view(-1, 1, 1, 1), noise, alpha.sqrt() * x + (1 - alpha).sqrt() * noise)
        wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * x
        width, height = size
        ids = torch.tensor([[height, width, 0, 0, height, width]], device=self.device, dtype=torch.float32)
        added = {"text_embeds": pooled, "time_ids": ids.expand(count, -1)}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            got = self.unet(noisy, timesteps, hidden, added_cond_kwargs=added, return_dict=False)[0]
        levels = tokens_of_levels(scenes, size, tuple(x.shape[2:]), self.device)
        gathering = gathering_loss(self.maps, levels) * (~blind)
        uneven = unevenness(self.blocks, levels) * alpha.flatten()
        return F.mse_loss(got.float(), wanted), gathering.mean(), uneven.mean()

    def step(self, latents: Latents, rng: random.Random, rate: float) -> tuple[float, float, float]:
        torch.manual_seed(self.seed * 1_000_003 + self.done)
        size = (latents.bucket.width, latents.bucket.height)
        prediction, gathering, uneven = self.loss(*latents.batch(rng), size, rng)
        optimize(self.unet, self.optimizers, prediction + GATHERING * gathering + EVENNESS * uneven, rate)
        self.done += 1
        keep = min(EMA, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.unet.parameters()):
                mean.lerp_(now, 1 - keep)
        return prediction.item(), gathering.item(), uneven.item()


def rate_at(step: int, steps: int) -> float:
    return RATE * min(1, (step + 1) / WARM_UP) * min(1, (1 - step / steps) / DECAY)


def _schedule(plan: list[Phase], seed: int) -> Iterator[Bucket]:
    """The bucket of every step."""
    rng = random.Random(f"{seed} buckets")
    for phase in plan:
        shares = [bucket.share for bucket in phase.buckets]
        yield from rng.choices(phase.buckets, shares, k=phase.steps)


def train(
    trainer: Trainer, vae: AutoencoderKL, plan: list[Phase], path: Path, look: Callable[[Trainer], None]
) -> UNet2DConditionModel:
    """Trains by the plan, continuing from the checkpoint `path`. Calls `look` at every checkpoint. Returns the average of
    the weights."""
    if state := checkpoint.load(path):
        trainer.load(state)
    buckets = list(_schedule(plan, trainer.seed))
    ready: dict[tuple[int, int], Latents] = {}
    bar = tqdm(range(trainer.done, len(buckets)), desc="unet", initial=trainer.done, total=len(buckets), mininterval=5)
    average = None
    for step in bar:
        bucket = buckets[step]
        key = (bucket.width, bucket.height)
        if key not in ready:
            file = path.with_name(f"latents-{bucket.width}x{bucket.height}.pt")
            ready[key] = Latents(bucket, vae, trainer.seed, file)
        losses = trainer.step(ready[key], random.Random(f"{trainer.seed} unet {step}"), rate_at(step, len(buckets)))
        average = losses if average is None else tuple(0.98 * a + 0.02 * b for a, b in zip(average, losses))
        losses_shown = {"loss": f"{average[0]:.4f}", "maps": f"{average[1]:.3f}", "uneven": f"{average[2]:.4f}"}
        bar.set_postfix(**losses_shown, size=f"{bucket.width}x{bucket.height}")
        if trainer.done % CHECKPOINT_STEPS == 0 or trainer.done == len(buckets):
            checkpoint.save(path, trainer.state())
            look(trainer)
    return trainer.average
