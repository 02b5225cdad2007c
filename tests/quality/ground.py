"""Reads the background of a picture: its kind, its colours, and what every pixel would be without the objects in front.

Objects cover at most a quarter of a picture (two big squares cover 19 %). So each kind of background is fitted to all
pixels with a method that is robust against a quarter of them. The kind with the best fit wins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from world import draw, scene

# Distances between colours are in sRGB units of 0..255.
FOREGROUND = 36  # a pixel farther than this from the background does not belong to it; scene.CONTRAST is 75
LEAST_DIFFERENCE = 45  # two background colours nearer than this count as one; those of the palette are 90 apart or more
COVERED = 0.25  # the share of the pixels that objects may cover
OUTLIER = 60  # no pixel counts for more than this in the mean distance of a fit
BAD_FIT = 33  # above this mean distance the picture has no background; a fit with 20 % outliers has 12
FARTHEST = 75  # a colour farther than this from all colours of the palette has no name
EVENING = 0.1  # radius over which the residual of a fit is averaged, in shorter sides
THINNED = 4  # for this average, every fourth pixel of every fourth row is enough

_NAMES = list(scene.COLOURS)
_PALETTE = np.array(list(scene.COLOURS.values()), np.float32)


@dataclass(frozen=True)
class Ground:
    kind: str | None
    colours: tuple[str | None, ...]
    pixels: np.ndarray  # F32 [height, width, 3]


def name_colour(rgb: np.ndarray) -> str | None:
    """The nearest colour of the palette; None if all are too far. Distances are in sRGB, like the contrast in scene.py,
    because that is the space in which a decoder makes its errors."""
    distance = np.linalg.norm(_PALETTE - rgb, axis=1)
    best = int(np.argmin(distance))
    return _NAMES[best] if distance[best] <= FARTHEST else None


def edge_of(width: int, height: int) -> int:
    """How many pixels a soft edge may reach to either side. A line thinner than twice this is not an object."""
    return max(2, round(0.012 * min(width, height)))


def _stripes(width: int, height: int) -> np.ndarray:
    """The share of the second colour in each column, f32 [width], by the rule of draw.py."""
    black, white = (scene.COLOURS[name][0] / 255 for name in ("black", "white"))
    return (draw.background("striped", ("black", "white"), width, height)[0, :, 0] - black) / (white - black)


def _distance(picture: np.ndarray, fit: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum((picture - fit) ** 2, axis=2))


def _gradient(picture: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The colours at the top and at the bottom, [2, 3]. The fit starts from the rows' medians; then come least squares over
    the pixels that fit best (least trimmed squares)."""
    slope, start = np.polyfit(share, np.median(picture, axis=1), 1)
    for _ in range(4):
        distance = _distance(picture, (start + share[:, None] * slope)[:, None])
        kept = distance <= np.quantile(distance, 1 - COVERED)
        count = kept.sum(1)
        rows = np.sum(picture * kept[:, :, None], axis=1) / np.maximum(count, 1)[:, None]
        slope, start = np.polyfit(share, rows, 1, w=np.sqrt(count))
    return np.stack([start, start + slope])


def _mixed(colours: np.ndarray, share: np.ndarray) -> np.ndarray:
    return (colours[0] + share[..., None] * (colours[-1] - colours[0])).astype(np.float32)


def _fits(picture: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The best fit of each kind: (kind, colours [n, 3], share of the second colour at each pixel [height or 1, width or 1])."""
    height, width = picture.shape[:2]
    thin = picture[::2, ::2]
    fits = [("plain", np.median(thin, axis=(0, 1))[None], np.zeros((1, 1), np.float32))]
    down = (np.arange(height, dtype=np.float32) + 0.5) / height
    fits.append(("graded", _gradient(thin, down[::2]), down[:, None]))
    across = _stripes(width, height)
    pair = [np.median(thin[:, part], axis=(0, 1)) for part in (across[::2] < 0.02, across[::2] > 0.98)]
    fits.append(("striped", np.stack(pair), across[None]))
    return [fit for fit in fits if len(fit[1]) == 1 or math.dist(*fit[1]) >= LEAST_DIFFERENCE]


def _between_stripes(picture: np.ndarray, colours: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Where two stripes meet, counts any mix of their colours as background: the edges in pictures are soft and not quite
    straight."""
    height, width = picture.shape[:2]
    way = (colours[1] - colours[0]).astype(np.float32)
    for columns in stripe_edges(width, height):
        share = np.clip((picture[:, columns] - colours[0].astype(np.float32)) @ way / (way @ way), 0, 1)
        pixels[:, columns] = _mixed(colours, share)
    return pixels


def stripe_edges(width: int, height: int) -> list[slice]:
    """The columns around each place where two stripes meet."""
    stripe, reach = scene.STRIPE * min(width, height), edge_of(width, height)
    places = [round(number * stripe) for number in range(1, math.ceil(width / stripe))]
    return [slice(place - reach, place + reach) for place in places if place + reach < width]


def _box_sum(values: np.ndarray, radius: int) -> np.ndarray:
    for axis in (0, 1):
        size = values.shape[axis]
        sums = np.cumsum(values, axis=axis, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), sums], axis)
        at = np.arange(size)
        ends, starts = np.minimum(at + radius + 1, size), np.maximum(at - radius, 0)
        values = np.take(sums, ends, axis) - np.take(sums, starts, axis)
    return values


def _evened(picture: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The fit, moved to the mean of the background around each pixel: a generated background is not quite even."""
    height, width = picture.shape[:2]
    left = (picture - pixels)[::THINNED, ::THINNED]
    near = np.sum(left**2, axis=2, keepdims=True) < FOREGROUND**2
    radius = max(1, round(EVENING * min(width, height) / THINNED))
    sums = _box_sum(np.concatenate([left * near, near], axis=2), radius)
    mean = (sums[:, :, :3] / np.maximum(sums[:, :, 3:], 1)).astype(np.float32)
    return pixels + mean.repeat(THINNED, 0)[:height].repeat(THINNED, 1)[:, :width]


def read_ground(picture: np.ndarray) -> Ground:
    """Reads the background of a picture, f32 [height, width, 3], 0..255."""

    def cost(fit) -> float:
        return float(np.mean(np.minimum(_distance(picture, _mixed(*fit[1:])), OUTLIER)))

    fits = _fits(picture)
    costs = [cost(fit) for fit in fits]
    kind, colours, share = fits[int(np.argmin(costs))]
    pixels = np.broadcast_to(_mixed(colours, share), picture.shape)
    if min(costs) > BAD_FIT:
        return Ground(None, (), pixels)
    pixels = _evened(picture, pixels)
    if kind == "striped":
        pixels = _between_stripes(picture, colours, pixels)
    return Ground(kind, tuple(name_colour(colour) for colour in colours), pixels)
