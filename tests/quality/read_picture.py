"""Reads a picture of the demo world: its background, and its objects with colour, shape, size and position.

The reader does not know what the picture should show; `verdict.py` compares. It uses no network and no training, but
inverts the rules of models/demo_world:

1. It reads the background (ground.py).
2. Pixels that differ from the background form connected components (mask.py). Specks and smears are dropped. A component
   with two colours is two objects.
3. The colour of an object is the median of its inside. Its soft mask says how far each pixel is on the way from the
   background to that colour.
4. The shape is the drawn shape that overlaps the soft mask most (shape.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ground import FOREGROUND, edge_of, name_colour, read_ground, stripe_edges
from mask import dilate, erode, label, opened, smooth
from shape import match_shape
from world import scene

OTHER_COLOUR = 60  # a part that differs from the object's colour by this much is another object (sRGB units)
LEAST_AREA = 0.004  # of an object, in squared shorter sides: a quarter of the smallest (a small star has 0.0163)
MARGIN = 0.015  # ignored along the picture's border, in shorter sides: no object reaches it, but a decoder's errors do


@dataclass(frozen=True)
class Found:
    """An object that was found. `colour` and `shape` are None if none fits."""

    colour: str | None
    shape: str | None
    size: str
    position: str
    x: float  # centre, in units of width and height
    y: float
    rgb: tuple[float, float, float]
    overlaps: dict[str, float]  # intersection over union with every shape


@dataclass(frozen=True)
class Reading:
    background: str | None
    colours: tuple[str | None, ...]
    things: tuple[Found, ...]


def relation_of(first, second) -> str:
    """The relation of the first object to the second, along the axis on which they are farther apart."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def position_of(x: float, y: float) -> str:
    cell = tuple(min(range(3), key=lambda i: abs(scene.GRID[i] - at)) for at in (x, y))
    return next(name for name, where in scene.POSITIONS.items() if where == cell)


def _across_stripes(mask: np.ndarray, edges: list[slice]) -> np.ndarray:
    """Fills the mask where two stripes meet: a pixel there is foreground if the pixels on both sides are. An orange object
    on red and yellow stripes looks there like a mix of both, which counts as background."""
    for columns in edges:
        mask[:, columns] |= (mask[:, columns.start - 1] & mask[:, columns.stop])[:, None]
    return mask


def _without_margin(mask: np.ndarray, margin: int) -> np.ndarray:
    kept = np.zeros_like(mask)
    inner = np.s_[margin:-margin, margin:-margin]
    kept[inner] = mask[inner]
    return kept


def _inside(part: np.ndarray, edge: int) -> np.ndarray:
    """The part without its soft edge; the whole part if nothing else would be left."""
    inside = erode(part, edge)
    return inside if inside.any() else part


def _split(part: np.ndarray, picture: np.ndarray, least: float, edge: int) -> list[np.ndarray]:
    """Splits the mask of a component into the masks of its objects: more than one if the component has several colours."""
    things = []
    while part.sum() >= least:
        inside = _inside(part, edge)
        colour = np.median(picture[inside], axis=0)
        other = inside & (np.sum((picture - colour) ** 2, axis=2) > OTHER_COLOUR**2)
        labels, count = label(opened(other, edge))
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        rest = dilate(np.isin(labels, 1 + np.flatnonzero(sizes[1:] >= least)), edge) & part
        own = part & ~rest
        if own.sum() < least:  # a fragmented picture: no colour fills a part of its own
            return [*things, part]
        things.append(own)
        part = rest
    return things


def _components(mask: np.ndarray, least: float):
    """Yields (window, mask within the window) of each component that is not a speck."""
    labels, count = label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    for number in 1 + np.flatnonzero(sizes[1:] >= least):
        ys, xs = np.nonzero(labels == number)
        window = np.s_[max(0, ys.min() - 4) : ys.max() + 5, max(0, xs.min() - 4) : xs.max() + 5]
        yield window, labels[window] == number


def _soft_mask(part: np.ndarray, picture: np.ndarray, ground: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """The share of the object's colour in each pixel of the object and around it, f32 in 0..1."""
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
    """Reads a picture, u8 [height, width, 3]."""
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
            if opened(piece, edge).sum() >= least:  # else it is a smear
                things.append(_read_thing(piece, soft[window], ground.pixels[window], corner, (width, height)))
    return Reading(ground.kind, ground.colours, tuple(things))
