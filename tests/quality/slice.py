#!/usr/bin/env python3
"""A small slice of the quality evaluation that runs with all tests. A live daemon draws a few prompts, pruned and unpruned,
and the figures are checked against bounds that a working build meets easily. `quality.py` is the real measurement.
"""

import sys
import unittest

import numpy as np

from arms import ARMS
from distance import feature_table, frechet, psnr
from generate import ask, pixels
from pictures import drawn
from prompts import fresh_scenes, prompts
from read_picture import read_picture
from verdict import judge

from daemon import Daemon, enter_class  # isort: skip  (the import of world.py makes it importable)

STEPS = 12
GUIDANCE = 4.0
PROMPTS = {"held_out_one": 12, "two": 8}  # number of prompts of each set
ARM = "at-edm-dagger"  # the demo model tolerates this preset: models/demo/README.md

# Bounds. Every run prints the figures that they limit; in brackets those of an AVX2 machine in f32.
LEAST_AGREEMENT = {"held_out_one": 9, "two": 6}  # prompts of a set that are right (10 and 7, both arms)
LEAST_SCORE = 0.6  # mean over all prompts (0.66, 0.65)
LEAST_PSNR = 30.0  # dB, mean, between pruned and unpruned pictures (34.2)
MOST_FRECHET = 30.0  # to drawn pictures (22.0, both arms); two sets of so few drawn pictures are 8 apart
REFERENCE = 100  # drawn pictures of each set that these are compared with


class Slice(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        daemon = enter_class(cls, Daemon())
        cls.pictures, cls.verdicts, cls.said = {}, {}, {}
        for arm in ("off", ARM):
            for name, count in PROMPTS.items():
                answers = [ask(daemon, p, ARMS[arm], {"steps": STEPS, "guidance_scale": GUIDANCE}) for p in prompts(name, count)]
                shown = [pixels(png) for png, _ in answers]
                cls.said[arm, name] = [said for _, said in answers]
                cls.pictures[arm, name] = shown
                cls.verdicts[arm, name] = [judge(p.scene, read_picture(s)) for p, s in zip(prompts(name, count), shown)]

    def all_of(self, table: dict, arm: str) -> list:
        return [entry for name in PROMPTS for entry in table[arm, name]]

    def figure(self, what: str, value: float) -> float:
        print(f"{what}: {value:.3f}", file=sys.stderr)
        return value

    def test_agreement(self):
        for (arm, name), verdicts in self.verdicts.items():
            right = self.figure(f"agreement of {arm}, {name}", sum(v.agrees for v in verdicts))
            with self.subTest(arm=arm, set=name):
                self.assertGreaterEqual(right, LEAST_AGREEMENT[name])

    def test_score(self):
        for arm in ("off", ARM):
            score = self.figure(f"score of {arm}", np.mean([v.score for v in self.all_of(self.verdicts, arm)]))
            with self.subTest(arm=arm):
                self.assertGreaterEqual(score, LEAST_SCORE)

    def test_pruned_is_like_unpruned(self):
        pairs = zip(self.all_of(self.pictures, "off"), self.all_of(self.pictures, ARM))
        decibels = [psnr(unpruned, pruned) for unpruned, pruned in pairs]
        self.assertGreaterEqual(self.figure("PSNR", np.mean(decibels)), LEAST_PSNR)

    def test_frechet_distance(self):
        height, width = self.all_of(self.pictures, "off")[0].shape[:2]
        reference = feature_table([drawn(s, width, height) for name in PROMPTS for s in fresh_scenes(name, REFERENCE)])
        for arm in ("off", ARM):
            distance = frechet(feature_table(self.all_of(self.pictures, arm)), reference)
            with self.subTest(arm=arm):
                self.assertLessEqual(self.figure(f"Frechet distance of {arm}", distance), MOST_FRECHET)

    def test_pruning_happened(self):
        self.assertTrue(all(said["flops"]["overhead"] == 0 for said in self.all_of(self.said, "off")))
        for said in self.all_of(self.said, ARM):
            self.assertLess(said["pruning"]["mean_unet_flops_ratio"], 0.95)
            self.assertLess(said["flops"]["executed"], said["flops"]["baseline"])


if __name__ == "__main__":
    unittest.main()
