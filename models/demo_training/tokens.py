"""What each token of attention shows: an object or background. This is known from the scene from which a picture is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from demo_world.draw import background, coverage
from demo_world.scene import SIZES, Scene

SHOWN = 0.15  # a token shows an object if the object covers at least this share of its area
ALIKE = 0.12  # standard deviation of likeness over the distance of two colours; black to white is sqrt(3)
_SAMPLES = 4  # samples along each side of a token
_BALANCING = 10  # iterations


@dataclass(frozen=True)
class Tokens:
    """What the tokens of some pictures show."""

    things: torch.Tensor  # I64 [n, tokens]: 0 for background, else 1 + the index of the object
    even: torch.Tensor  # bool [n, tokens]: the token shows nothing else; false if an edge runs through it
    # F32 [n, tokens, tokens]: how similar two background tokens are in colour. Rows sum to 1, those of objects to 0.
    alike: torch.Tensor


def _pooled(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The mean over the samples of each token, [rows, columns, ...]."""
    return values.reshape(rows, _SAMPLES, columns, _SAMPLES, *values.shape[2:]).mean((1, 3))


def look_at(scenes: list[Scene], size: tuple[int, int], rows: int, columns: int) -> tuple[torch.Tensor, ...]:
    """Tokens.things, Tokens.even, and the background's colour at each token, also behind objects, f32 [n, tokens, 3].
    `size`: the picture's width and height."""
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
    """Scales symmetric weights so that all rows and columns nearly sum to 1 (Sinkhorn and Knopp). Empty rows stay empty."""
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
    """The tokens of each resolution that has attention, by their number. `size`: the picture's width and height in pixels;
    `latent`: rows and columns of the latents."""
    rows, columns = latent
    known: dict[int, Tokens] = {}
    for _ in range(2):  # two resolutions of the UNet have attention
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
        things, even, colours = (part.to(device) for part in look_at(scenes, size, rows, columns))
        known[rows * columns] = Tokens(things, even, _alike(things, colours))
    return known


def mean_where(values: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The mean of the wanted values of each row; 0 if none is wanted."""
    return (values * wanted).sum(1) / wanted.sum(1).clamp_min(1)
