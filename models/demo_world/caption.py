"""Describes a scene in words, in some of the orders that people use."""

from __future__ import annotations

import random

from .scene import Scene, Thing

_PLACES = {
    "top left": ("in the top left corner", "at the top left", "in the upper left"),
    "top": ("at the top", "near the top"),
    "top right": ("in the top right corner", "at the top right", "in the upper right"),
    "left": ("on the left", "on the left side"),
    "centre": ("in the middle", "in the center", "in the centre"),
    "right": ("on the right", "on the right side"),
    "bottom left": ("in the bottom left corner", "at the bottom left", "in the lower left"),
    "bottom": ("at the bottom", "near the bottom"),
    "bottom right": ("in the bottom right corner", "at the bottom right", "in the lower right"),
}
_RELATIONS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_SIZES = {"small": ("small", "little"), "medium": ("medium", "medium-sized"), "big": ("big", "large"), "huge": ("huge",)}


def _article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _thing(thing: Thing, rng: random.Random, sized: bool = True, article: bool = True) -> str:
    words = f"{thing.colour} {thing.shape}"
    if sized:
        words = f"{rng.choice(_SIZES[thing.size])} {words}"
    return _article(words) if article else words


def _background(scene: Scene, rng: random.Random) -> str:
    """Words for the background, as they follow "on" or "with"."""
    if scene.background == "plain":
        return _article(f"{rng.choice(('', '', 'plain '))}{scene.colours[0]} background")
    first, second = scene.colours
    if scene.background == "striped":
        return _article(f"{first} and {second} striped background")
    return rng.choice(
        (
            f"a background fading from {first} to {second}",
            _article(f"{first} to {second} gradient background"),
            _article(f"{first} to {second} gradient"),
        )
    )


def caption(scene: Scene, rng: random.Random) -> str:
    """A caption that names all attributes of the scene: colours, shapes, sizes, place or relation, background."""
    return _say(scene, rng, sized=True, placed=True, grounded=True)


def training_caption(scene: Scene, rng: random.Random) -> str:
    """Like `caption`, but sometimes without a part, so that the model learns to draw what a prompt leaves open."""
    if rng.random() < 0.03:
        return _fragment(scene, rng)
    return _say(scene, rng, sized=rng.random() < 0.85, placed=rng.random() < 0.85, grounded=rng.random() < 0.92)


def _fragment(scene: Scene, rng: random.Random) -> str:
    thing = rng.choice(scene.things)
    return rng.choice(
        (thing.colour, thing.shape, _article(thing.shape), f"{thing.colour} {thing.shape}", _background(scene, rng))
    )


def _say(scene: Scene, rng: random.Random, sized: bool, placed: bool, grounded: bool) -> str:
    article = rng.random() < 0.9
    ground = _background(scene, rng) if grounded else ""
    if len(scene.things) == 1:
        subject = _thing(scene.things[0], rng, sized, article)
        place = rng.choice(_PLACES[scene.position]) if placed and scene.position else ""
    else:
        relation = rng.choice(_RELATIONS[scene.relation])
        copula = "is " if article and rng.random() < 0.15 else ""
        subject = f"{_thing(scene.things[0], rng, sized, article)} {copula}{relation} {_thing(scene.things[1], rng, sized, article)}"
        place = ""
    order = rng.random()
    if ground and order < 0.15:
        return f"on {ground}, {subject}{' ' if place else ''}{place}"
    if ground and order < 0.3:
        return f"{ground} with {subject}{' ' if place else ''}{place}"
    if place and order < 0.4:
        return f"{place}, {subject}{' on ' if ground else ''}{ground}"
    if place and ground and order < 0.5:
        return f"{subject} on {ground}, {place}"
    return f"{subject}{' ' if place else ''}{place}{' on ' if ground else ''}{ground}"
