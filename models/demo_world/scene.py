"""Defines a scene, one or two flat objects on a background, and chooses random scenes.

Lengths are in units of the picture's shorter side, positions in units of its width and height, from the
top left corner.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (245, 140, 20),
    "yellow": (250, 225, 50),
    "green": (35, 150, 60),
    "cyan": (60, 205, 220),
    "blue": (35, 65, 210),
    "purple": (130, 45, 165),
    "pink": (250, 150, 195),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "heart", "ring", "cross")
# Radius of the circle around an object, in units of the picture's shorter side.
SIZES: dict[str, float] = {"small": 0.11, "medium": 0.15, "big": 0.195, "huge": 0.245}
# Column and row in a 3x3 grid.
POSITIONS: dict[str, tuple[int, int]] = {
    "top left": (0, 0),
    "top": (1, 0),
    "top right": (2, 0),
    "left": (0, 1),
    "centre": (1, 1),
    "right": (2, 1),
    "bottom left": (0, 2),
    "bottom": (1, 2),
    "bottom right": (2, 2),
}
RELATIONS: dict[str, tuple[int, int]] = {  # from the second object to the first
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
BACKGROUNDS = ("plain", "graded", "striped")

GRID = (0.27, 0.5, 0.73)  # the positions of the grid's columns and rows
JITTER = 0.02  # how far an object's centre may be from its place in the grid
STRIPE = 0.125  # width of a stripe, in units of the shorter side
CONTRAST = 75  # least distance between the colours of an object and of the background, in sRGB units of 0..255
PAIR_SIZES = ("small", "medium", "big")  # sizes that leave room for another object

# Every tenth pair of a colour and a shape. No training picture shows one of these pairs.
HELD_OUT = frozenset(
    {
        ("purple", "circle"),
        ("green", "square"),
        ("orange", "triangle"),
        ("red", "diamond"),
        ("cyan", "star"),
        ("yellow", "heart"),
        ("black", "ring"),
        ("blue", "cross"),
    }
)


@dataclass(frozen=True)
class Thing:
    """One object."""

    colour: str
    shape: str
    size: str
    x: float  # centre
    y: float


@dataclass(frozen=True)
class Scene:
    """One picture. A scene of two objects has a `relation`, from the second to the first, as in "the first is left of
    the second"; a scene of one object has a `position`."""

    things: tuple[Thing, ...]
    background: str
    colours: tuple[str, ...]  # of the background: one, or two (from top to bottom; first stripe first)
    position: str | None = None
    relation: str | None = None


def _jitter(rng: random.Random) -> float:
    return rng.uniform(-JITTER, JITTER)


def stands_out(colour: str, kind: str, ground: tuple[str, ...]) -> bool:
    """Whether an object of this colour stands out from the background wherever it is. A graded background also shows
    the colours between its two: from red to yellow there is orange."""
    c, a, b = COLOURS[colour], COLOURS[ground[0]], COLOURS[ground[-1]]
    shares = [i / 8 for i in range(9)] if kind == "graded" else [0, 1]
    return all(math.dist(c, [p + share * (q - p) for p, q in zip(a, b)]) >= CONTRAST for share in shares)


def _colour_and_shape(rng: random.Random, free: list[str], held_out: bool) -> tuple[str, str]:
    """A random colour of `free` and a random shape. With `held_out` it is one of the held-out pairs, else none of them."""
    while True:
        colour, shape = rng.choice(free), rng.choice(SHAPES)
        if ((colour, shape) in HELD_OUT) == held_out:
            return colour, shape


def _background(rng: random.Random) -> tuple[str, tuple[str, ...]]:
    kind = rng.choice(BACKGROUNDS)
    return kind, tuple(rng.sample(list(COLOURS), 1 if kind == "plain" else 2))


def random_scene(rng: random.Random, things: int = 1, held_out: bool = False) -> Scene:
    """A scene with `things` objects, 1 or 2. With `held_out`, colour and shape of its (first) object are a held-out
    pair, which no training picture shows; otherwise no object has such a pair."""
    kind, ground = _background(rng)
    free = [colour for colour in COLOURS if stands_out(colour, kind, ground)]
    if things == 1:
        name = rng.choice(list(POSITIONS))
        column, row = POSITIONS[name]
        colour, shape = _colour_and_shape(rng, free, held_out)
        x, y = GRID[column] + _jitter(rng), GRID[row] + _jitter(rng)
        return Scene((Thing(colour, shape, rng.choice(list(SIZES)), x, y),), kind, ground, position=name)
    relation = rng.choice(list(RELATIONS))
    dx, dy = RELATIONS[relation]
    first = _colour_and_shape(rng, free, held_out)
    second = _colour_and_shape(rng, [colour for colour in free if colour != first[0]], False)
    pair = []
    for (colour, shape), sign in ((first, 1), (second, -1)):
        x = GRID[1 + sign * dx] + _jitter(rng)
        y = GRID[1 + sign * dy] + _jitter(rng)
        pair.append(Thing(colour, shape, rng.choice(PAIR_SIZES), x, y))
    return Scene(tuple(pair), kind, ground, relation=relation)
