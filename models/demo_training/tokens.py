"""What the tokens of attention show, known from the scene that a picture was drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from demo_world.draw import background, coverage
from demo_world.scene import SIZES, Scene

SHOWN = 0.15  # share of its area that a thing has to cover for a token to show the thing
ALIKE = 0.12  # distance of colours at which likeness falls, in units where black to white is sqrt(3)
_SAMPLES = 4  # per side of a token
_BALANCING = 10  # iterations


@dataclass(frozen=True)
class Tokens:
    """What the tokens of some pictures show."""

    things: torch.Tensor  # I64 [n, tokens]: 0 for background, else 1 + the thing
    even: torch.Tensor  # bool [n, tokens]: nothing else than that; the others have a piece of an edge
    # F32 [n, tokens, tokens]: how alike two of the background are in colour; rows sum to 1, those of things to 0
    alike: torch.Tensor


def _pooled(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Means over the samples of each token, [rows, columns, ...]."""
    return values.reshape(rows, _SAMPLES, columns, _SAMPLES, *values.shape[2:]).mean((1, 3))


def look_at(scenes: list[Scene], size: tuple[int, int], rows: int, columns: int) -> tuple[torch.Tensor, ...]:
    """Tokens.things, Tokens.even, and the colour of the background, also behind things, F32 [n, tokens, 3]. `size`:
    width and height."""
    width, height = size
    fine_x = (np.arange(columns * _SAMPLES) + 0.5) * width / (columns * _SAMPLES)
    fine_y = (np.arange(rows * _SAMPLES) + 0.5) * height / (rows * _SAMPLES)
    x, y = np.meshgrid(fine_x, fine_y)
    things, even, grounds = [], [], []
    for scene in scenes:
        shares = [np.full((rows, columns), SHOWN)]
        for thing in scene.things:
            radius = SIZES[thing.size] * min(width, height)
            fine = coverage(thing.shape, radius, x - thing.x * width, y - thing.y * height)
            shares.append(_pooled(fine, rows, columns))
        things.append(np.argmax(shares, axis=0).ravel())
        covered = np.sum(shares[1:], axis=0).ravel()
        even.append((covered == 0) | (covered == 1))
        ground = background(scene.background, scene.colours, columns * _SAMPLES, rows * _SAMPLES)
        grounds.append(_pooled(ground, rows, columns).reshape(-1, 3))
    return tuple(torch.from_numpy(np.stack(part)) for part in (things, even, grounds))


def _balanced(weights: torch.Tensor) -> torch.Tensor:
    """Symmetric weights brought near to rows and columns that all sum to 1 (Sinkhorn and Knopp); empty rows stay so."""
    for _ in range(_BALANCING):
        weights = weights / weights.sum(2, keepdim=True).sqrt().clamp_min(1e-6)
        weights = weights / weights.sum(1, keepdim=True).sqrt().clamp_min(1e-6)
    return weights / weights.sum(2, keepdim=True).clamp_min(1e-6)


def _alike(things: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    ground = things == 0
    distance = torch.cdist(colours, colours)
    return _balanced(torch.exp(-0.5 * (distance / ALIKE).square()) * (ground[:, :, None] & ground[:, None, :]))


def tokens_of_levels(
    scenes: list[Scene], size: tuple[int, int], latent: tuple[int, int], device: torch.device
) -> dict[int, Tokens]:
    """By their number. `size`: width and height in pixels; `latent`: rows and columns."""
    rows, columns = latent
    known: dict[int, Tokens] = {}
    for _ in range(2):  # the levels with attention
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
        things, even, colours = (part.to(device) for part in look_at(scenes, size, rows, columns))
        known[rows * columns] = Tokens(things, even, _alike(things, colours))
    return known


def mean_where(values: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Of each row; 0 where nothing is wanted."""
    return (values * wanted).sum(1) / wanted.sum(1).clamp_min(1)
