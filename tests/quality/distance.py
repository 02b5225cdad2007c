"""Distances between pictures: Frechet distance between two sets, PSNR and SSIM between two pictures.

The Frechet distance is calculated as in FID, but from 82 fixed features (README.md lists them) instead of a network's:
|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2) for the means m and covariances S of the standardized features.
"""

from __future__ import annotations

import functools
import math
import random

import numpy as np

from world import draw, scene

PSNR_CAP = 100.0  # dB: the largest PSNR, which equal pictures get

_STANDARD_SCENES = 200  # drawn scenes whose mean and deviation standardize the features
_STANDARD_SEED = 20_000_000
_PALETTE = np.array(list(scene.COLOURS.values()), np.float32)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


# ---- features


def _grid(picture: np.ndarray, cells: int = 4) -> np.ndarray:
    """The mean colour of each of cells x cells parts."""
    rows = np.array_split(picture, cells, axis=0)
    return np.array([part.mean((0, 1)) for row in rows for part in np.array_split(row, cells, axis=1)]).ravel()


def _colour_shares(picture: np.ndarray) -> np.ndarray:
    """The share of pixels whose nearest colour is this one, for each colour of the palette. Samples every second pixel of
    every second row."""
    pixels = picture[::2, ::2].reshape(-1, 3)
    distance = (_PALETTE**2).sum(1) - 2 * pixels @ _PALETTE.T  # squared, minus a term that is equal for all colours
    return np.bincount(np.argmin(distance, axis=1), minlength=len(_PALETTE)) / len(pixels)


def _edges(luma: np.ndarray) -> list[float]:
    """The mean gradient in 4 directions, and in 3 rings around the centre."""
    dy, dx = np.gradient(luma)
    strength = np.hypot(dx, dy)
    direction = np.floor(np.arctan2(dy, dx) / (math.pi / 4) + 0.5).astype(int) % 4
    height, width = luma.shape
    y = (np.arange(height) + 0.5) / height * 2 - 1
    x = (np.arange(width) + 0.5) / width * 2 - 1
    ring = np.digitize(np.maximum(np.abs(y)[:, None], np.abs(x)[None]), (0.33, 0.67))
    pooled = [np.bincount(kind.ravel(), strength.ravel(), size) for kind, size in ((direction, 4), (ring, 3))]
    return list(np.concatenate(pooled) / luma.size)


def _halve(luma: np.ndarray) -> np.ndarray:
    height, width = (side // 2 * 2 for side in luma.shape)
    return luma[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))


def features(picture: np.ndarray) -> np.ndarray:
    """The features, f64 [82], of a picture, u8 [height, width, 3]; not standardized."""
    p = picture.astype(np.float32)
    luma, edges = p @ _LUMA, []
    for _ in range(3):
        edges += _edges(luma)
        luma = _halve(luma)
    return np.concatenate([_grid(p), _colour_shares(p), p.std((0, 1)), np.sqrt(edges)]).astype(np.float64)


@functools.lru_cache(maxsize=1)
def _standard() -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each feature over drawn scenes."""
    rng = random.Random(_STANDARD_SEED)
    scenes = [scene.random_scene(rng, 1 + i % 2) for i in range(_STANDARD_SCENES)]
    f = np.array([features((draw.draw(s, 256, 256) * 255 + 0.5).astype(np.uint8)) for s in scenes])
    return f.mean(0), f.std(0)


def standardized(rows: list[np.ndarray]) -> np.ndarray:
    """Standardizes features; the result, [pictures, features], is a table for `frechet`."""
    mean, deviation = _standard()
    return (np.array(rows) - mean) / deviation


def feature_table(pictures) -> np.ndarray:
    return standardized([features(picture) for picture in pictures])


# ---- Frechet distance


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _covariance(table: np.ndarray, shrinkage: float) -> np.ndarray:
    s = np.cov(table, rowvar=False)
    return (1 - shrinkage) * s + shrinkage * np.diag(np.diag(s))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance between two feature tables. Few pictures give poor estimates of the covariances, so off-diagonal
    entries are multiplied by n / (n + features). Both sets use the n of the smaller one, so that they are shrunk alike."""
    size = a.shape[1]
    shrinkage = size / (size + min(len(a), len(b)))
    sa, sb = _covariance(a, shrinkage), _covariance(b, shrinkage)
    root = _root(sa)
    cross = np.linalg.eigvalsh(root @ sb @ root)
    apart = np.sum((a.mean(0) - b.mean(0)) ** 2)
    return float(max(0.0, apart + np.trace(sa) + np.trace(sb) - 2 * np.sum(np.sqrt(np.maximum(cross, 0)))))


# ---- two pictures


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """The PSNR in dB, over all channels of two u8 pictures."""
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return PSNR_CAP if error == 0 else min(PSNR_CAP, 10 * math.log10(255**2 / error))


def _window() -> np.ndarray:
    w = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    return w / w.sum()


def _blur(image: np.ndarray) -> np.ndarray:
    """Applies a Gaussian window, 11 x 11 with sigma 1.5, wherever it lies completely within the image."""
    for axis in (0, 1):
        length = image.shape[axis] - 10
        image = sum(w * np.take(image, range(i, i + length), axis) for i, w in enumerate(_window()))
    return image


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity of luma (Wang et al. 2004; K1 = 0.01, K2 = 0.03, L = 255)."""
    x, y = (picture.astype(np.float64) @ _LUMA.astype(np.float64) for picture in (a, b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = _blur(x), _blur(y)
    vx, vy, cov = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))
