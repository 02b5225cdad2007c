"""Pictures for the self-checks: drawn scenes, and ways to degrade them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from world import draw, scene


def drawn(wanted: scene.Scene, width: int = 256, height: int = 256) -> np.ndarray:
    """The scene as drawn, u8 [height, width, 3]."""
    return (draw.draw(wanted, width, height) * 255 + 0.5).astype(np.uint8)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(sigma)))


def noisy(picture: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    return _bytes(picture + rng.normal(0, sigma, picture.shape))


def tinted(picture: np.ndarray, offset: float, rng: np.random.Generator) -> np.ndarray:
    """Every channel shifted by `offset`, up or down."""
    return _bytes(picture + rng.choice([-offset, offset], 3))


def halved(picture: np.ndarray) -> np.ndarray:
    """Reduced to half the size and enlarged again."""
    height, width = picture.shape[:2]
    small = Image.fromarray(picture).resize((width // 2, height // 2), Image.BOX)
    return np.asarray(small.resize((width, height), Image.BICUBIC))
