#!/usr/bin/env python3
"""Many requests at once: pictures do not depend on each other, requests come and go, sizes share the device.

ATEDM_TEST_BACKENDS names other backends than cpu's, with their dtypes, for the test of the crowd: "cuda:f32,cuda:bf16".
"""
import os
import random
import threading
import unittest

from daemon import LONG, PATIENCE, SMALL, Daemon, images_of, series, wait_until

BACKENDS = [pair.split(":") for pair in os.environ.get("ATEDM_TEST_BACKENDS", "cpu:auto,cpu:f32").split(",")]
CROWD = int(os.environ.get("ATEDM_TEST_CROWD", "64"))
AT_ONCE = 16


def crowd(samplers):
    """Requests that differ in everything."""
    rng = random.Random(4)
    requests = []
    for i in range(CROWD):
        pruning = rng.choice(["off", "at-edm-a", "at-edm-c", "at-edm-dagger",
                              {"ratio": rng.choice([0.3, 0.8]), "recovery": rng.choice(["cosine", "nearest", "zero"])},
                              {"preset": "at-edm-b", "score": {"map": rng.choice(["cross", "random"])}},
                              {"preset": "at-edm-c", "score": {"interval": rng.choice([2, 3])}}])
        requests.append({
            "prompt": f"crowd {i}", "seed": i, "steps": rng.randint(1, 6), "num_images": rng.choice([1, 1, 2]),
            "width": rng.choice([32, 64]), "height": rng.choice([32, 64]), "pruning": pruning,
            "guidance_scale": rng.choice([1, 4.5]), "negative_prompt": rng.choice([None, "", "blurry"]),
            "sampler": rng.choice(samplers),
        })
    return requests


class Batching(unittest.TestCase):
    def generate_all(self, d, requests, order):
        """Their pictures, asked for by AT_ONCE clients in this order, beside others that hang up."""
        pictures, queue, lock = [None] * len(requests), list(order), threading.Lock()
        failures = []

        def client(rng):
            while True:
                with lock:
                    if not queue:
                        return
                    i = queue.pop()
                if rng.random() < 0.3:
                    d.start({**LONG, "width": 64, "height": 32, "num_images": 2, "prompt": "gone"}).close()
                answer = d.generate(requests[i])
                if answer.status != 200:
                    failures.append(answer.body)
                    continue
                pictures[i] = images_of(answer)
                sizes.append(answer.json()["batch"]["max_size"])

        sizes = []
        threads = [threading.Thread(target=client, args=(random.Random(k),)) for k in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        return pictures, max(sizes)

    def test_pictures_do_not_depend_on_the_crowd(self):
        for backend, dtype in BACKENDS:
            with Daemon(backend=backend, dtype=dtype) as d:
                requests = crowd([sampler["name"] for sampler in d.get("/v1/samplers").json()["samplers"]])
                alone = [images_of(d.generate(request)) for request in requests]
                order = list(range(CROWD))
                random.Random(9).shuffle(order)
                together, largest = self.generate_all(d, requests, order)
                self.assertGreater(largest, 2)
                for i, pictures in enumerate(together):
                    self.assertEqual(pictures, alone[i], requests[i])
                wait_until(lambda: d.gauge("atedm_active_requests") == 0, "nothing left")
                self.assertEqual(d.gauge("atedm_queue_depth"), 0)
                self.assertEqual(d.gauge("atedm_queue_flops"), 0)

    def test_a_short_request_overtakes_a_long_one(self):
        with Daemon() as d:
            long = d.in_background({**LONG, "num_images": 1, "width": 64, "height": 64})
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "the long one runs")
            for size in (32, 64):  # beside it, and in one evaluation with it
                answer = d.generate({"width": size, "height": size})
                self.assertEqual(answer.status, 200)
                self.assertIsNone(long.result)
            self.assertEqual(answer.json()["batch"]["max_size"], 2)
            self.assertEqual(long.answer().status, 200)

    def test_one_at_a_time(self):
        with Daemon(max_active=1, max_batch=1) as d:
            together = [d.in_background({**SMALL, "num_images": 2}) for _ in range(4)]
            for one in together:
                self.assertEqual(one.answer().json()["batch"], {"mean_size": 1, "max_size": 1})
            self.assertEqual(d.metrics()[series("atedm_batch_size_sum", device="cpu")], 4 * 2 * 2)

    def test_memory_limit(self):
        with Daemon() as d:
            d.generate()
            used = d.gauge("atedm_device_memory_bytes", device="cpu")
        with Daemon(memory_limit=int(used * 1.5)) as d:
            # Not beside each other, then one after the other; what does not fit alone is refused.
            together = [d.in_background({**SMALL, "seed": i}) for i in range(6)]
            for one in together:
                self.assertEqual(one.answer().status, 200)
            large = {"width": 512, "height": 512, "num_images": 8}
            answer = d.generate(large)
            self.assertEqual((answer.status, answer.json()["type"]), (422, "urn:atedm:problem:no-memory"))
            self.assertIn("does not fit into", answer.json()["detail"])
            self.assertIn("does not fit into", d.log())
            path = d.generate(large, headers={"Prefer": "respond-async"}).headers["Location"]
            wait_until(lambda: d.get(path).json()["state"] == "failed", "the job has failed")
            self.assertEqual(d.get(path).json()["error"]["type"], "urn:atedm:problem:no-memory")
            self.assertEqual(d.generate().status, 200)
            self.assertLess(d.gauge("atedm_device_memory_bytes", device="cpu"), used * 1.5)

    def test_memory_limit_below_the_weights(self):
        with Daemon(wait=False, memory_limit=1000) as d:
            self.assertEqual(d.process.wait(PATIENCE), 1)
            self.assertRegex(d.log(), r"memory_limit 1000 leaves nothing for requests: the weights take \d+ bytes")


if __name__ == "__main__":
    unittest.main()
