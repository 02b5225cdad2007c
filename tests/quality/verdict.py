"""Compares the reading of a picture with the scene that it should show."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from read_picture import Found, Reading, relation_of
from world import scene

COLOUR_REACH = 120  # at this sRGB distance from the wanted colour, the colour's part of `score` is 0


@dataclass(frozen=True)
class Verdict:
    """What is right. Position is judged only for one object, relation only for two; otherwise they are None."""

    count: bool
    colour: bool  # of all wanted objects; likewise shape and size
    shape: bool
    background: bool
    size: bool
    position: bool | None
    relation: bool | None
    score: float  # 0..1: overlap with the wanted shape times closeness to the wanted colour, mean over the wanted objects

    @property
    def agrees(self) -> bool:
        """Whether the picture agrees with the prompt: number, colours and shapes of the objects, background, and relation of
        two are right. Size and position do not count; they are only reported."""
        return self.count and self.colour and self.shape and self.background and self.relation is not False


COMPONENTS = ("count", "colour", "shape", "background", "size", "position", "relation")


def _pair_up(wanted: scene.Scene, things: tuple[Found, ...]) -> list[tuple[scene.Thing, Found | None]]:
    """Pairs each wanted object with a found one, so that most colours and shapes agree, and then places are nearest."""
    candidates = list(things) + [None] * max(0, len(wanted.things) - len(things))

    def worth(found: tuple[Found | None, ...]) -> tuple[int, float]:
        pairs = [(w, f) for w, f in zip(wanted.things, found) if f]
        alike = sum((f.colour == w.colour) + (f.shape == w.shape) for w, f in pairs)
        return alike, -sum(math.dist((w.x, w.y), (f.x, f.y)) for w, f in pairs)

    best = max(itertools.permutations(candidates, len(wanted.things)), key=worth)
    return list(zip(wanted.things, best))


def _same_background(wanted: scene.Scene, read: Reading) -> bool:
    """Whether the backgrounds are equal. The order of colours matters for a gradient, but not for stripes."""
    if wanted.background != read.background:
        return False
    if wanted.background == "striped":
        return set(wanted.colours) == set(read.colours)
    return wanted.colours == read.colours


def _score(wanted: scene.Thing, found: Found | None) -> float:
    if found is None:
        return 0.0
    distance = math.dist(found.rgb, scene.COLOURS[wanted.colour])
    return found.overlaps[wanted.shape] * max(0.0, 1 - distance / COLOUR_REACH)


def _meant(pair: tuple[scene.Thing, Found | None]) -> bool:
    """Whether the found object has the colour or the shape of the wanted one. Without this check, any two blobs in the right
    relation would count."""
    wanted, found = pair
    return found is not None and (found.colour == wanted.colour or found.shape == wanted.shape)


def judge(wanted: scene.Scene, read: Reading) -> Verdict:
    # A fragmented picture may have many objects. Only the first few are candidates, to limit the permutations.
    pairs = _pair_up(wanted, read.things[:6])
    single = len(wanted.things) == 1
    found = [f for _, f in pairs]
    return Verdict(
        count=len(read.things) == len(wanted.things),
        colour=all(f is not None and f.colour == w.colour for w, f in pairs),
        shape=all(f is not None and f.shape == w.shape for w, f in pairs),
        background=_same_background(wanted, read),
        size=all(f is not None and f.size == w.size for w, f in pairs),
        position=(found[0] is not None and found[0].position == wanted.position) if single else None,
        relation=None if single else all(map(_meant, pairs)) and relation_of(*found) == wanted.relation,
        score=sum(_score(w, f) for w, f in pairs) / len(pairs),
    )
