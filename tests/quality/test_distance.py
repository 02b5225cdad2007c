#!/usr/bin/env python3
"""Tests distances and statistics against values that are known independently."""

import math
import unittest

import numpy as np

from distance import PSNR_CAP, feature_table, features, frechet, psnr, ssim
from pictures import blurred, drawn, noisy
from prompts import SETS, fresh_scenes, prompts
from stats import mcnemar, paired_difference, sign_flip, wilson
from world import scene

FEATURES = 82


def constant(value: int) -> np.ndarray:
    return np.full((24, 20, 3), value, np.uint8)


class Frechet(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.drawn = [drawn(s) for s in fresh_scenes("two", 60)]
        cls.table = feature_table(cls.drawn)

    def test_features(self):
        self.assertEqual(self.table.shape, (60, FEATURES))
        self.assertTrue(np.isfinite(self.table).all())
        self.assertEqual(features(np.zeros((192, 320, 3), np.uint8)).shape, (FEATURES,))

    def test_equal_sets(self):
        self.assertLess(frechet(self.table, self.table[::-1]), 1e-6)

    def test_known_gaussians(self):
        rng = np.random.default_rng(1)
        a = rng.normal(size=(20000, 3))
        self.assertAlmostEqual(frechet(a, 2 * a + [1, 0, 2]), 5 + 3 * (2 - 1) ** 2, delta=0.15)

    def test_symmetric(self):
        other = feature_table([blurred(p, 2) for p in self.drawn[:40]])
        self.assertAlmostEqual(frechet(self.table, other), frechet(other, self.table), places=6)

    def test_grows_with_blur_and_noise(self):
        rng = np.random.default_rng(2)
        for suffer in (lambda p, much: blurred(p, much / 2), lambda p, much: noisy(p, much, rng)):
            distances = [
                frechet(self.table, feature_table([suffer(p, much) for p in self.drawn])) for much in (2, 6, 16)
            ]
            self.assertEqual(distances, sorted(distances))
            self.assertGreater(distances[0], 0.01)

    def test_other_scenes_are_nearer_than_spoilt_ones(self):
        other = feature_table([drawn(s) for s in fresh_scenes("two", 120)[60:]])
        gray = feature_table([constant(128)] * 60)
        rng = np.random.default_rng(3)
        noise = feature_table([noisy(p, 30, rng) for p in self.drawn])
        floor = frechet(self.table, other)
        self.assertLess(2 * floor, frechet(self.table, noise))
        self.assertLess(2 * floor, frechet(self.table, gray))


class TwoPictures(unittest.TestCase):
    def test_psnr(self):
        self.assertEqual(psnr(constant(7), constant(7)), PSNR_CAP)
        self.assertAlmostEqual(psnr(constant(100), constant(110)), 20 * math.log10(255 / 10))
        self.assertAlmostEqual(psnr(constant(0), constant(255)), 0)

    def test_ssim_of_constants(self):
        c1 = (0.01 * 255) ** 2
        for a, b in ((100, 100), (100, 110), (0, 255)):
            self.assertAlmostEqual(ssim(constant(a), constant(b)), (2 * a * b + c1) / (a * a + b * b + c1))

    def test_ssim_of_one_window(self):
        """A picture of 11 x 11 pixels has a single window, so the formula can be written out."""
        rng = np.random.default_rng(4)
        a, b = rng.integers(0, 256, (2, 11, 11), np.uint8)
        weights = np.array([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for j in range(11)] for i in range(11)])
        weights /= weights.sum()
        ma, mb = np.sum(weights * a), np.sum(weights * b)
        va, vb = np.sum(weights * (a - ma) ** 2), np.sum(weights * (b - mb) ** 2)
        cov = np.sum(weights * (a - ma) * (b - mb))
        c1, c2 = 6.5025, 58.5225
        expected = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
        gray = [np.repeat(p[:, :, None], 3, axis=2) for p in (a, b)]
        self.assertAlmostEqual(ssim(*gray), expected, places=6)

    def test_both_fall_with_blur(self):
        picture = drawn(fresh_scenes("one", 1)[0])
        spoilt = [blurred(picture, sigma) for sigma in (0.5, 1, 2, 4)]
        for measure in (psnr, ssim):
            values = [measure(picture, s) for s in spoilt]
            self.assertEqual(values, sorted(values, reverse=True))
        self.assertAlmostEqual(ssim(picture, picture), 1)


class Statistics(unittest.TestCase):
    def test_wilson(self):
        low, high = wilson(81, 263)  # Newcombe 1998, table I
        self.assertAlmostEqual(low, 0.2553, places=4)
        self.assertAlmostEqual(high, 0.3662, places=4)
        self.assertEqual(wilson(0, 10)[0], 0)
        self.assertEqual(wilson(10, 10)[1], 1)

    def test_mcnemar(self):
        self.assertAlmostEqual(mcnemar([1] * 9 + [0], [0] * 9 + [1]), 22 / 1024)
        self.assertEqual(mcnemar([1, 0, 1], [1, 0, 1]), 1)
        self.assertEqual(mcnemar([1, 0], [0, 1]), 1)

    def test_paired_difference(self):
        difference, low, high = paired_difference([1] * 30 + [0] * 70, [1] * 20 + [0] * 80)
        self.assertAlmostEqual(difference, 0.10)
        self.assertTrue(0.02 < low < 0.10 < high < 0.17, (low, high))

    def test_sign_flip(self):
        rng = np.random.default_rng(5)
        none = rng.normal(size=50)
        self.assertGreater(sign_flip(none - none.mean()), 0.9)
        self.assertLess(sign_flip(none + 3), 0.001)
        self.assertEqual(sign_flip(none + 0.3), sign_flip(none + 0.3))
        self.assertAlmostEqual(sign_flip(np.ones(5)), 2 / 32, delta=0.01)


class Prompts(unittest.TestCase):
    def test_the_same_for_ever(self):
        for name in SETS:
            self.assertEqual(prompts(name, 20), prompts(name, 40)[:20])
            self.assertEqual(len({p.seed for p in prompts(name)}), 200)

    def test_what_is_held_out(self):
        for name, (things, held_out, _) in SETS.items():
            for p in prompts(name, 50):
                pairs = [(t.colour, t.shape) in scene.HELD_OUT for t in p.scene.things]
                self.assertEqual(pairs, [held_out, False][:things])
                for thing in p.scene.things:
                    self.assertIn(f"{thing.colour} {thing.shape}", p.text)

    def test_fresh_scenes_are_others(self):
        for name in SETS:
            self.assertFalse({p.scene for p in prompts(name)} & set(fresh_scenes(name, 200)))


if __name__ == "__main__":
    unittest.main()
