"""Reads a picture of the demo world: its background, and the things on it with colour, shape, size and place.

It reads blind: nothing here knows what the picture should show. `verdict.py` compares. No network, no training;
the rules of models/demo_world, turned around:

1. the background (ground.py);
2. what is far from it hangs together in components (mask.py); specks and smears are dropped, two colours in one
   component are two things;
3. a thing's colour is the median of its inside, its soft mask how far each pixel is from the background
   towards that colour;
4. its shape is the drawn one that overlaps the soft mask most (shape.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ground import FOREGROUND, edge_of, name_colour, read_ground, stripe_edges
from mask import dilate, erode, label, opened, smooth
from shape import match_shape
from world import scene

OTHER_COLOUR = 60  # a part of a thing this far from its colour is another thing
LEAST_AREA = 0.004  # of a thing, in squared shorter sides: a quarter of the smallest (a small star has 0.0163)
MARGIN = 0.015  # at the picture's border: no thing goes there, but what a decoder makes of the border does


@dataclass(frozen=True)
class Found:
    """One thing. `colour` and `shape` are None where none fits."""

    colour: str | None
    shape: str | None
    size: str
    position: str
    x: float  # centre, in units of width and height
    y: float
    rgb: tuple[float, float, float]
    overlaps: dict[str, float]  # with every shape


@dataclass(frozen=True)
class Reading:
    background: str | None
    colours: tuple[str | None, ...]
    things: tuple[Found, ...]


def relation_of(first, second) -> str:
    """That of the first thing to the second, by the longer of the two ways."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def position_of(x: float, y: float) -> str:
    cell = tuple(min(range(3), key=lambda i: abs(scene.GRID[i] - at)) for at in (x, y))
    return next(name for name, where in scene.POSITIONS.items() if where == cell)


def _across_stripes(mask: np.ndarray, edges: list[slice]) -> np.ndarray:
    """Orange on stripes of red and yellow cannot be told from where they meet: there, what is foreground on both
    sides is foreground."""
    for columns in edges:
        mask[:, columns] |= (mask[:, columns.start - 1] & mask[:, columns.stop])[:, None]
    return mask


def _without_margin(mask: np.ndarray, margin: int) -> np.ndarray:
    kept = np.zeros_like(mask)
    inner = np.s_[margin:-margin, margin:-margin]
    kept[inner] = mask[inner]
    return kept


def _inside(part: np.ndarray, edge: int) -> np.ndarray:
    """Without its soft edge, where something is left then."""
    inside = erode(part, edge)
    return inside if inside.any() else part


def _split(part: np.ndarray, picture: np.ndarray, least: float, edge: int) -> list[np.ndarray]:
    """The mask of a component as the masks of its things: more than one where colours differ."""
    things = []
    while part.sum() >= least:
        inside = _inside(part, edge)
        colour = np.median(picture[inside], axis=0)
        other = inside & (np.sum((picture - colour) ** 2, axis=2) > OTHER_COLOUR**2)
        labels, count = label(opened(other, edge))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        rest = dilate(np.isin(labels, 1 + np.flatnonzero(sizes[1:] >= least)), edge) & part
        own = part & ~rest
        if own.sum() < least:  # a torn picture: no colour has a part of its own
            return [*things, part]
        things.append(own)
        part = rest
    return things


def _components(mask: np.ndarray, least: float):
    """(window, mask within it) of each component that is no speck."""
    labels, count = label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    for number in 1 + np.flatnonzero(sizes[1:] >= least):
        ys, xs = np.nonzero(labels == number)
        window = np.s_[max(0, ys.min() - 4) : ys.max() + 5, max(0, xs.min() - 4) : xs.max() + 5]
        yield window, labels[window] == number


def _soft_mask(part: np.ndarray, picture: np.ndarray, ground: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """F32, 0..1: how much of each pixel of the thing and around it has its colour."""
    towards = rgb - ground
    length = np.sum(towards**2, axis=2)
    share = np.clip(np.sum((picture - ground) * towards, axis=2) / np.maximum(length, 1), 0, 1)
    share = np.where(length < FOREGROUND**2, part, share)
    return np.where(dilate(part, 2), share, 0).astype(np.float32)


def _read_thing(part: np.ndarray, picture: np.ndarray, ground: np.ndarray, corner: tuple[int, int], sides) -> Found:
    width, height = sides
    rgb = np.median(picture[_inside(part, edge_of(width, height))], axis=0)
    match = match_shape(_soft_mask(part, picture, ground, rgb))
    radius = match.radius / min(width, height)
    size = min(scene.SIZES, key=lambda name: abs(math.log(scene.SIZES[name] / radius)))
    x, y = (match.x + corner[0]) / width, (match.y + corner[1]) / height
    return Found(name_colour(rgb), match.shape, size, position_of(x, y), x, y, tuple(map(float, rgb)), match.overlaps)


def read_picture(picture: np.ndarray) -> Reading:
    """`picture`: U8 [height, width, 3]."""
    height, width = picture.shape[:2]
    shorter = min(width, height)
    soft = smooth(picture.astype(np.float32))
    ground = read_ground(soft)
    mask = np.sum((soft - ground.pixels) ** 2, axis=2) > FOREGROUND**2
    edge, least = edge_of(width, height), LEAST_AREA * shorter**2
    if ground.kind == "striped":
        mask = opened(_across_stripes(mask, stripe_edges(width, height)), edge, (1,))
    else:
        mask = opened(mask, 1)
    mask = _without_margin(mask, round(MARGIN * shorter))
    things = []
    for window, part in _components(mask, least):
        corner = (window[1].start, window[0].start)
        for piece in _split(part, soft[window], least, edge):
            if opened(piece, edge).sum() >= least:  # no smear
                things.append(_read_thing(piece, soft[window], ground.pixels[window], corner, (width, height)))
    return Reading(ground.kind, ground.colours, tuple(things))
