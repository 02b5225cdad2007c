"""Which shape a soft mask has: the one of draw.py's that overlaps it most, over a search in place and radius."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from world import draw, scene

LEAST_OVERLAP = 0.7  # intersection over union under which a thing has none of the shapes

_SIDE = 40  # points along a template
_REACH = 1.15  # a template covers -_REACH.._REACH radii
_STEPS = (0.08, 0.04, 0.02)  # of the search, in radii
_CLOSE = 0.2  # a shape whose first overlap is this much less than the best is not searched
_MOVES = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], np.float32)

_points = ((np.arange(_SIDE) + 0.5) / _SIDE * 2 - 1) * _REACH
_cell = 2 * _REACH / _SIDE


def _template(name: str) -> np.ndarray:
    x, y = np.meshgrid(_points, _points)
    return draw.coverage(name, 1 / _cell, x / _cell, y / _cell)


@dataclass(frozen=True)
class _Shape:
    template: np.ndarray
    area: float  # at radius 1
    x: float  # its centroid from its centre, at radius 1
    y: float


def _measure(name: str) -> _Shape:
    t = _template(name)
    total = t.sum()
    return _Shape(t.astype(np.float32), total * _cell**2, (t.sum(0) @ _points) / total, (t.sum(1) @ _points) / total)


_SHAPES = {name: _measure(name) for name in scene.SHAPES}


@dataclass(frozen=True)
class Match:
    shape: str | None
    overlaps: dict[str, float]  # of every shape; only those near the best were searched for their best place
    x: float
    y: float
    radius: float


def _sample(mask: np.ndarray, where: np.ndarray) -> np.ndarray:
    """[n, _SIDE, _SIDE]: the mask around each (x, y, radius) of `where`, bilinear, 0 outside."""
    padded = np.pad(mask, 1)
    sides = []
    for column, size in ((0, mask.shape[1]), (1, mask.shape[0])):
        at = where[:, column, None] + where[:, 2, None] * _points[None].astype(np.float32) + 0.5
        at = np.clip(at, 0, size + 0.999)
        low = at.astype(np.intp)
        sides.append((low, (at - low).astype(np.float32)))
    (x, fx), (y, fy) = sides
    x, fx, y, fy = x[:, None], fx[:, None], y[:, :, None], fy[:, :, None]
    top = padded[y, x] * (1 - fx) + padded[y, x + 1] * fx
    bottom = padded[y + 1, x] * (1 - fx) + padded[y + 1, x + 1] * fx
    return top * (1 - fy) + bottom * fy


def _overlap(mask: np.ndarray, total: float, shape: _Shape, where: np.ndarray) -> np.ndarray:
    """Soft intersection over union: minima over maxima, with the mask outside the template counted too."""
    common = np.minimum(_sample(mask, where), shape.template).sum((1, 2))
    cells = total / (where[:, 2] * _cell) ** 2
    return common / (cells + shape.template.sum() - common)


def _search(mask: np.ndarray, total: float, shape: _Shape, start: np.ndarray, best: float):
    here = start
    for step in _STEPS:
        for _ in range(4):
            around = here + _MOVES * step * here[2]
            overlaps = _overlap(mask, total, shape, around)
            i = int(np.argmax(overlaps))
            if overlaps[i] <= best:
                break
            here, best = around[i], float(overlaps[i])
    return here, best


def match_shape(mask: np.ndarray) -> Match:
    """`mask`: F32 [height, width], 0..1. The answer's x and y are in pixels from its top left corner."""
    total = float(mask.sum())
    x = float(mask.sum(0) @ (np.arange(mask.shape[1]) + 0.5)) / total
    y = float(mask.sum(1) @ (np.arange(mask.shape[0]) + 0.5)) / total
    starts, overlaps = {}, {}
    for name, shape in _SHAPES.items():
        radius = (total / shape.area) ** 0.5
        starts[name] = np.array([x - shape.x * radius, y - shape.y * radius, radius], np.float32)
        overlaps[name] = float(_overlap(mask, total, shape, starts[name][None])[0])
    near = max(overlaps.values()) - _CLOSE
    for name in [name for name in overlaps if overlaps[name] >= near]:
        starts[name], overlaps[name] = _search(mask, total, _SHAPES[name], starts[name], overlaps[name])
    best = max(overlaps, key=overlaps.get)
    place = [float(v) for v in starts[best]]
    return Match(best if overlaps[best] >= LEAST_OVERLAP else None, overlaps, *place)
