"""The fixed prompts of the evaluation: scene, caption and seed, the same for ever.

A set's first N prompts are the same however many are asked for. Names and what is in them:

held_out_one   one thing, a pair of colour and shape that no training picture shows: does the model put
               together what it has only seen apart?
two            two things with a relation, each a pair that training knows; the scene as such is new
one            one thing, a pair that training knows: what held_out_one is to be held against
two_held_out   as two, the first thing a held-out pair

The first two are what is evaluated unless `--sets` says otherwise.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from world import caption, scene

# name: (things, whether the first is held out, first seed)
SETS = {
    "held_out_one": (1, True, 1_000_000),
    "two": (2, False, 2_000_000),
    "one": (1, False, 3_000_000),
    "two_held_out": (2, True, 4_000_000),
}
DEFAULT_SETS = ("held_out_one", "two")
PER_SET = 200
_OTHER_SCENES = 9_000_000  # far from the seeds of the prompts


@dataclass(frozen=True)
class Prompt:
    number: int
    scene: scene.Scene
    text: str
    seed: int  # of the generation


def prompts(name: str, count: int = PER_SET) -> list[Prompt]:
    things, held_out, first = SETS[name]
    rng = random.Random(first)
    made = []
    for i in range(count):
        wanted = scene.random_scene(rng, things, held_out)
        made.append(Prompt(i, wanted, caption.caption(wanted, rng), first + i))
    return made


def fresh_scenes(name: str, count: int) -> list[scene.Scene]:
    """Other scenes of the same distribution."""
    things, held_out, first = SETS[name]
    rng = random.Random(first + _OTHER_SCENES)
    return [scene.random_scene(rng, things, held_out) for _ in range(count)]
