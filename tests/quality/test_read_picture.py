#!/usr/bin/env python3
"""Tests the evaluator: it reads drawn pictures correctly, also degraded ones, and it notices when something is wrong."""

import random
import unittest
from dataclasses import replace

import numpy as np

from mask import label
from pictures import blurred, drawn, halved, noisy, tinted
from read_picture import read_picture
from verdict import COMPONENTS, judge
from world import scene

SIZES = ((256, 256), (192, 192), (512, 512), (320, 192), (256, 384))
FRESH = 150  # scenes
DEGRADED = 50  # scenes for each kind of degradation

ONE = scene.Scene((scene.Thing("red", "circle", "big", 0.27, 0.5),), "plain", ("cyan",), position="left")
TWO = scene.Scene(
    (scene.Thing("red", "star", "medium", 0.27, 0.5), scene.Thing("blue", "ring", "big", 0.73, 0.5)),
    "graded",
    ("yellow", "white"),
    relation="left of",
)


def sample(count: int, seed: int):
    """Yields scenes of one and two objects, half of them with a held-out pair, and a size for each."""
    rng = random.Random(seed)
    for i in range(count):
        yield scene.random_scene(rng, 1 + i % 2, held_out=i % 4 > 1), SIZES[i // 4 % len(SIZES)]


def all_right(verdict) -> bool:
    return verdict.agrees and verdict.size and verdict.position is not False


def with_thing(wanted: scene.Scene, number: int = 0, **changes) -> scene.Scene:
    things = list(wanted.things)
    things[number] = replace(things[number], **changes)
    return replace(wanted, things=tuple(things))


class ReadsBack(unittest.TestCase):
    def share_right(self, count: int, suffer) -> float:
        rng = np.random.default_rng(2)
        right = 0
        for wanted, (width, height) in sample(count, 1):
            verdict = judge(wanted, read_picture(suffer(drawn(wanted, width, height), rng)))
            right += all_right(verdict)
        return right / count

    def test_fresh(self):
        self.assertGreaterEqual(self.share_right(FRESH, lambda p, rng: p), 0.99)

    def test_degraded(self):
        ways = {
            "blur": lambda p, rng: blurred(p, 1.5),
            "noise": lambda p, rng: noisy(p, 8, rng),
            "tint": lambda p, rng: tinted(p, 15, rng),
            "half the pixels": lambda p, rng: halved(p),
            "all of them": lambda p, rng: noisy(tinted(blurred(halved(p), 1.5), 15, rng), 8, rng),
        }
        for name, suffer in ways.items():
            with self.subTest(name):
                self.assertGreaterEqual(self.share_right(DEGRADED, suffer), 0.97)

    def test_a_full_score_for_what_was_drawn(self):
        for wanted in (ONE, TWO):
            self.assertGreater(judge(wanted, read_picture(drawn(wanted))).score, 0.95)

    def test_orange_on_stripes_of_red_and_yellow(self):
        ground = replace(ONE, background="striped", colours=("red", "yellow"))
        for shape in scene.SHAPES:
            wanted = with_thing(ground, colour="orange", shape=shape, size="small", x=0.25)
            self.assertTrue(all_right(judge(wanted, read_picture(drawn(wanted)))), shape)


class SaysNo(unittest.TestCase):
    def wrong(self, wanted: scene.Scene, shown: scene.Scene) -> list[str]:
        verdict = judge(wanted, read_picture(drawn(shown)))
        wrong = [name for name in COMPONENTS if getattr(verdict, name) is False]
        self.assertEqual(verdict.agrees, not set(wrong) - {"size", "position"})
        return wrong

    def test_nothing_is_wrong(self):
        self.assertEqual(self.wrong(ONE, ONE), [])
        self.assertEqual(self.wrong(TWO, TWO), [])

    def test_only_the_colour(self):
        self.assertEqual(self.wrong(ONE, with_thing(ONE, colour="purple")), ["colour"])
        self.assertEqual(self.wrong(TWO, with_thing(TWO, 1, colour="green")), ["colour"])

    def test_only_the_shape(self):
        for shape in scene.SHAPES[1:]:
            self.assertEqual(self.wrong(ONE, with_thing(ONE, shape=shape)), ["shape"], shape)
        self.assertEqual(self.wrong(TWO, with_thing(TWO, 1, shape="circle")), ["shape"])

    def test_only_the_background(self):
        grounds = [("plain", ("blue",)), ("graded", ("cyan", "blue")), ("striped", ("cyan", "blue"))]
        for kind, colours in grounds:
            self.assertEqual(self.wrong(ONE, replace(ONE, background=kind, colours=colours)), ["background"])
        self.assertEqual(self.wrong(TWO, replace(TWO, colours=TWO.colours[::-1])), ["background"])

    def test_stripes_have_no_first_colour(self):
        striped = replace(ONE, background="striped", colours=("cyan", "blue"))
        self.assertEqual(self.wrong(striped, replace(striped, colours=("blue", "cyan"))), [])
        self.assertEqual(self.wrong(striped, replace(striped, colours=("cyan", "green"))), ["background"])

    def test_only_the_size(self):
        for size in ("small", "medium", "huge"):
            self.assertEqual(self.wrong(ONE, with_thing(ONE, size=size)), ["size"])

    def test_only_the_position(self):
        for name, (column, row) in scene.POSITIONS.items():
            shown = with_thing(ONE, x=scene.GRID[column], y=scene.GRID[row])
            self.assertEqual(self.wrong(ONE, shown), [] if name == ONE.position else ["position"])

    def test_only_the_relation(self):
        first, second = TWO.things
        swapped = (replace(first, x=second.x), replace(second, x=first.x))
        self.assertEqual(self.wrong(TWO, replace(TWO, things=swapped)), ["relation"])
        turned = (replace(first, x=0.5, y=0.27), replace(second, x=0.5, y=0.73))
        self.assertEqual(self.wrong(TWO, replace(TWO, things=turned)), ["relation"])

    def test_only_the_count(self):
        more = scene.Thing("black", "star", "small", 0.73, 0.73)
        self.assertEqual(self.wrong(ONE, replace(ONE, things=(*ONE.things, more))), ["count"])
        twin = replace(ONE.things[0], x=0.73)
        self.assertEqual(self.wrong(ONE, replace(ONE, things=(*ONE.things, twin))), ["count"])

    def test_a_missing_thing(self):
        for left in TWO.things:
            wrong = self.wrong(TWO, replace(TWO, things=(left,)))
            self.assertEqual(wrong, ["count", "colour", "shape", "size", "relation"])
        self.assertIn("count", self.wrong(ONE, replace(ONE, things=())))

    def test_colours_of_two_things_exchanged(self):
        first, second = TWO.things
        shown = (replace(first, colour=second.colour), replace(second, colour=first.colour))
        self.assertFalse(judge(TWO, read_picture(drawn(replace(TWO, things=shown)))).agrees)

    def test_a_thing_in_two_colours_is_two_things(self):
        picture = drawn(ONE)
        torn = picture.copy()
        torn[140:][picture[140:, :, 0] > 150] = scene.COLOURS["black"]
        verdict = judge(ONE, read_picture(torn))
        self.assertFalse(verdict.count)

    def test_pictures_of_nothing(self):
        rng = np.random.default_rng(3)
        pictures = {
            "gray": np.full((256, 256, 3), 128, np.uint8),
            "the background alone": drawn(replace(ONE, things=())),
            "noise": rng.integers(0, 256, (256, 256, 3), np.uint8),
            "coarse noise": np.kron(rng.integers(0, 256, (16, 16, 3), np.uint8), np.ones((16, 16, 1), np.uint8)),
        }
        for name, picture in pictures.items():
            for wanted in (ONE, TWO):
                verdict = judge(wanted, read_picture(picture))
                self.assertFalse(verdict.agrees, name)
                self.assertLess(verdict.score, 0.35, name)

    def test_another_scene(self):
        scenes = [wanted for wanted, _ in sample(60, 4)]
        for wanted, shown in zip(scenes, scenes[2:]):
            self.assertFalse(judge(wanted, read_picture(drawn(shown))).agrees)


class Label(unittest.TestCase):
    def test_against_flooding(self):
        rng = np.random.default_rng(5)
        for _ in range(40):
            mask = rng.random(rng.integers(1, 24, 2)) < rng.uniform(0.1, 0.9)
            labels, count = label(mask)
            self.assertEqual(sorted(set(labels[mask])), list(range(1, count + 1)))
            self.assertFalse(labels[~mask].any())
            self.assertEqual(self.partition(labels), self.partition(self.flood(mask)))

    @staticmethod
    def partition(labels: np.ndarray) -> set:
        flat = labels.ravel()
        return {tuple(np.flatnonzero(flat == number)) for number in set(flat) - {0}}

    @staticmethod
    def flood(mask: np.ndarray) -> np.ndarray:
        labels, count = np.zeros(mask.shape, int), 0
        for start in zip(*np.nonzero(mask)):
            count += labels[start] == 0
            stack = [start] if labels[start] == 0 else []
            while stack:
                y, x = stack.pop()
                if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not labels[y, x]:
                    labels[y, x] = count
                    stack += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        return labels


if __name__ == "__main__":
    unittest.main()
