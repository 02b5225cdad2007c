#!/usr/bin/env python3
"""The daemon on the emulated cuda backend: whole requests, pruned and not, with the same pictures alone and in one batch."""
import unittest

from daemon import Daemon, images_of, series, wait_until

PRUNINGS = ("off", "at-edm-c", {"ratio": 0.5, "recovery": "cosine"}, {"preset": "at-edm-b", "score": {"map": "cross"}},
            {"preset": "at-edm-b", "score": {"interval": 2}})


class Emulated(unittest.TestCase):
    def test_pictures_do_not_depend_on_the_batch(self):
        requests = [{"prompt": f"emulated {i}", "seed": i, "steps": 4, "width": 32, "height": 32, "pruning": pruning}
                    for i, pruning in enumerate(PRUNINGS)]
        with Daemon(backend="cuda", dtype="bf16") as d:
            alone = [images_of(d.generate(request)) for request in requests]
            together = [d.in_background(request).answer for request in requests]
            answers = [answer() for answer in together]
            for request, answer, pictures in zip(requests, answers, alone):
                self.assertEqual(answer.status, 200)
                self.assertEqual(images_of(answer), pictures, request)
            self.assertGreater(max(answer.json()["batch"]["max_size"] for answer in answers), 1)
            self.assertEqual(len({pictures[0] for pictures in alone}), len(requests))
            self.assertEqual(d.metrics()[series("atedm_worker_up", device="cuda:0")], 1)

    def test_auto_takes_it(self):
        with Daemon(backend="auto") as d:
            wait_until(lambda: any(name == "atedm_model_info" and ("backend", "cuda") in labels
                                   for name, labels in d.metrics()), "the backend is cuda")


if __name__ == "__main__":
    unittest.main()
