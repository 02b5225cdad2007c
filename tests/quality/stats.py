"""Confidence intervals and statistical tests for shares and for paired values."""

from __future__ import annotations

import math

import numpy as np

Z = 1.959964  # 95 %
FLIPS = 10_000
FLIP_SEED = 1


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if count == 0:
        return 0.0, 1.0
    share, z2 = right / count, Z * Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, middle - half) if right else 0.0, min(1.0, middle + half) if right < count else 1.0


def _only(a, b) -> tuple[int, int]:
    """How often only the first is right, and how often only the second."""
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    return int(np.sum(a & ~b)), int(np.sum(b & ~a))


def mcnemar(a, b) -> float:
    """Exact two-sided p-value for the hypothesis that two paired series of right and wrong have the same share."""
    first, second = _only(a, b)
    n = first + second
    tail = sum(math.comb(n, i) for i in range(min(first, second) + 1))
    return min(1.0, 2 * tail / 2**n)


def paired_difference(a, b) -> tuple[float, float, float]:
    """The share of a minus the share of b, and its 95 % interval (Agresti and Min 2005: adds half a case to each cell)."""
    first, second = _only(a, b)
    n = len(a)
    more, less, all_cases = first + 0.5, second + 0.5, n + 2
    middle = (more - less) / all_cases
    half = Z * math.sqrt((more + less) - (more - less) ** 2 / all_cases) / all_cases
    return (first - second) / n, middle - half, middle + half


def sign_flip(differences) -> float:
    """Two-sided p-value for the hypothesis that paired differences are symmetric around 0. Compares their mean with the means
    under random signs."""
    d = np.asarray(differences, np.float64)
    signs = np.random.default_rng(FLIP_SEED).integers(0, 2, (FLIPS, len(d)), np.int8) * 2 - 1
    flipped = np.abs(signs @ d)
    return float((1 + np.sum(flipped >= abs(d.sum()) * (1 - 1e-12))) / (1 + FLIPS))
