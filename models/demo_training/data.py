"""Random training scenes, and batches of their pictures."""

from __future__ import annotations

import random

import numpy as np
import torch
from demo_world.draw import draw
from demo_world.scene import Scene, random_scene

PAIRS = 0.55  # share of scenes with two objects


def random_scenes(rng: random.Random, count: int) -> list[Scene]:
    """Scenes for training. None has a held-out pair of colour and shape."""
    return [random_scene(rng, things=2 if rng.random() < PAIRS else 1) for _ in range(count)]


def pictures(scenes: list[Scene], width: int, height: int) -> torch.Tensor:
    """The scenes' pictures as f32 [n, 3, height, width] in -1..1, channels last in memory."""
    drawn = torch.from_numpy(np.stack([draw(scene, width, height) for scene in scenes]))
    return drawn.permute(0, 3, 1, 2) * 2 - 1
