"""The fixed prompts of the evaluation: scene, caption and seed. They never change.

The first N prompts of a set are the same, however many are requested. The sets:

held_out_one   one object, whose pair of colour and shape is in no training picture: can the model combine a
               colour and a shape that it has only seen apart?
two            two objects with a relation, each of a pair that occurs in training; the scene itself is new
one            one object of a pair that occurs in training, to compare held_out_one with
two_held_out   like two, but the first object is of a held-out pair

The first two sets are evaluated, unless `--sets` says otherwise.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from world import caption, scene

# name: (number of objects, whether the first is of a held-out pair, first seed)
SETS = {
    "held_out_one": (1, True, 1_000_000),
    "two": (2, False, 2_000_000),
    "one": (1, False, 3_000_000),
    "two_held_out": (2, True, 4_000_000),
}
DEFAULT_SETS = ("held_out_one", "two")
PER_SET = 200
_OTHER_SCENES = 9_000_000  # added to a set's first seed, far from the seeds of its prompts


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
