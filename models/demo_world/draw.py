"""Draws a scene at any size: anti-aliased, from signed distances."""

from __future__ import annotations

import math

import numpy as np

from .scene import COLOURS, SIZES, STRIPE, Scene

# Each shape lies within radius 1 around the origin; y points down.


def _polygon(corners: list[tuple[float, float]], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to a closed polygon, negative inside."""
    nearest = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2)
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * ex / ey)
    return np.where(inside, -1.0, 1.0) * np.sqrt(nearest)


def _star_corners(inner: float = 0.46) -> list[tuple[float, float]]:
    corners = []
    for i in range(10):
        radius, angle = (1.0 if i % 2 == 0 else inner), math.pi * i / 5
        corners.append((radius * math.sin(angle), -radius * math.cos(angle)))
    return corners


_SQUARE = [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]
_TRIANGLE = [(0.0, -0.95), (0.98, 0.75), (-0.98, 0.75)]
_DIAMOND = [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)]
_STAR = _star_corners()
_ARM = 0.32
_CROSS = [
    (-_ARM, -0.95), (_ARM, -0.95), (_ARM, -_ARM), (0.95, -_ARM), (0.95, _ARM), (_ARM, _ARM),
    (_ARM, 0.95), (-_ARM, 0.95), (-_ARM, _ARM), (-0.95, _ARM), (-0.95, -_ARM), (-_ARM, -_ARM),
]  # fmt: skip
_HEART_TIP = [(-0.872, -0.02), (0.0, -0.35), (0.872, -0.02), (0.0, 0.95)]


def _disc(x: np.ndarray, y: np.ndarray, cx: float, cy: float, radius: float) -> np.ndarray:
    return np.hypot(x - cx, y - cy) - radius


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    lobes = np.minimum(_disc(x, y, -0.48, -0.32, 0.5), _disc(x, y, 0.48, -0.32, 0.5))
    return np.minimum(lobes, _polygon(_HEART_TIP, x, y))


_DISTANCE = {
    "circle": lambda x, y: _disc(x, y, 0, 0, 0.9),
    "square": lambda x, y: _polygon(_SQUARE, x, y),
    "triangle": lambda x, y: _polygon(_TRIANGLE, x, y),
    "diamond": lambda x, y: _polygon(_DIAMOND, x, y),
    "star": lambda x, y: _polygon(_STAR, x, y),
    "heart": _heart,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.68) - 0.24,
    "cross": lambda x, y: _polygon(_CROSS, x, y),
}


def coverage(shape: str, radius: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The share of each pixel that the shape covers, 0..1. `radius`, `x` and `y` (from the shape's centre) are in pixels."""
    return np.clip(0.5 - _DISTANCE[shape](x / radius, y / radius) * radius, 0, 1)


def background(kind: str, colours: tuple[str, ...], width: int, height: int) -> np.ndarray:
    """The background as f32 [height, width, 3], 0..1."""
    first = np.array(COLOURS[colours[0]], np.float32) / 255
    if kind == "plain":
        return np.broadcast_to(first, (height, width, 3)).copy()
    second = np.array(COLOURS[colours[1]], np.float32) / 255
    if kind == "graded":
        share = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None, None]
    else:  # vertical stripes; a pixel on the edge between two of them mixes both colours
        stripe = STRIPE * min(width, height)
        edge = np.arange(width + 1, dtype=np.float32) / stripe
        covered = np.floor(edge / 2) + np.clip(edge % 2 - 1, 0, 1)  # stripes of the second colour left of each edge
        share = (np.diff(covered) * stripe)[None, :, None].astype(np.float32)
    return np.broadcast_to(first + share * (second - first), (height, width, 3)).copy()


def draw(scene: Scene, width: int, height: int) -> np.ndarray:
    """The picture as f32 [height, width, 3], sRGB values in 0..1."""
    picture = background(scene.background, scene.colours, width, height)
    for thing in scene.things:
        radius = SIZES[thing.size] * min(width, height)
        cx, cy = thing.x * width, thing.y * height
        left, right = max(0, int(cx - radius) - 1), min(width, int(cx + radius) + 3)
        top, bottom = max(0, int(cy - radius) - 1), min(height, int(cy + radius) + 3)
        y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + 0.5
        share = coverage(thing.shape, radius, x - cx, y - cy)[:, :, None].astype(np.float32)
        part = picture[top:bottom, left:right]
        part += share * (np.array(COLOURS[thing.colour], np.float32) / 255 - part)
    return picture
