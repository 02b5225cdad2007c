"""Finds the shape of a soft mask: that shape of draw.py which, at its best place and radius, overlaps the mask most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from world import draw, scene

LEAST_OVERLAP = 0.7  # an object whose best intersection over union is less than this has none of the shapes

_SIDE = 40  # points along each side of a template
_REACH = 1.15  # a template covers -_REACH.._REACH radii
_STEPS = (0.08, 0.04, 0.02)  # step sizes of the search, in radii
_CLOSE = 0.2  # a shape whose overlap at the start is more than this below the best one is not searched
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
    x: float  # offset of the centroid from the centre, at radius 1
    y: float


def _measure(name: str) -> _Shape:
    t = _template(name)
    total = t.sum()
    return _Shape(t.astype(np.float32), total * _cell**2, (t.sum(0) @ _points) / total, (t.sum(1) @ _points) / total)


_SHAPES = {name: _measure(name) for name in scene.SHAPES}


@dataclass(frozen=True)
class Match:
    shape: str | None
    overlaps: dict[str, float]  # of every shape: at its best place if it was searched, else at its start
    x: float
    y: float
    radius: float


def _sample(mask: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The mask around each (x, y, radius) of `where`, [n, _SIDE, _SIDE]: interpolated bilinearly, 0 outside."""
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
    """Soft intersection over union: sum of minima over sum of maxima. The mask outside the template counts too."""
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
    """Finds the shape of `mask`, f32 [height, width], 0..1. The match's x and y are in pixels from the mask's top left corner."""
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
