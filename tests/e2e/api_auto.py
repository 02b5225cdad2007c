#!/usr/bin/env python3
"""Pruning "auto": the mildest plan that is expected in time, from what the queue holds and how fast it goes."""
import subprocess
import time
import unittest

from daemon import LONG, MODEL, PATIENCE, PROGRAM, SMALL, Daemon, images_of, wait_until

AUTO = {"width": 64, "height": 64, "pruning": "auto"}
ASYNC = {"Prefer": "respond-async"}


class Auto(unittest.TestCase):
    def test_is_off_without_an_objective(self):
        with Daemon() as d:
            answer = d.generate(AUTO)
            self.assertEqual(answer.status, 422)
            self.assertEqual(answer.pointers(), ["/pruning"])
            self.assertIn("latency_objective_s", answer.json()["errors"][0]["detail"])

    def test_prunes_under_load_and_says_why(self):
        with Daemon() as d:
            d.generate(SMALL)
            start = time.monotonic()
            d.generate({**AUTO, "pruning": "off"})
            objective = max(2, round(5 * (time.monotonic() - start)))  # also under a sanitizer
        with Daemon(latency_objective_s=objective, auto_floor="at-edm-b") as d:
            first = d.generate(AUTO).json()["pruning"]
            self.assertEqual(first["preset"], "off")
            self.assertIsNone(first["auto"]["expected_s"])
            idle = d.generate(AUTO).json()["pruning"]
            self.assertEqual(idle["preset"], "off")
            self.assertLess(idle["auto"]["expected_s"], objective)
            self.assertEqual(idle["auto"]["objective_s"], objective)
            load = [d.post("/generate", LONG, ASYNC).headers["Location"] for _ in range(3)]
            loaded = d.post("/v1/estimate", {**SMALL, **AUTO}).json()["pruning"]
            self.assertEqual(loaded["preset"], "at-edm-b")
            self.assertGreater(loaded["auto"]["expected_s"], objective)
            self.assertIn("floor", loaded["auto"]["reason"])
            answer = d.generate(AUTO)
            self.assertEqual(answer.json()["pruning"]["preset"], "at-edm-b")
            for path in load:
                d.request("DELETE", path)
            self.assertEqual(images_of(answer), images_of(d.generate({**AUTO, "pruning": "at-edm-b"})))
            # A client that chooses is not overruled, and is told nothing.
            chosen = d.generate({**AUTO, "pruning": "at-edm-a"}).json()["pruning"]
            self.assertEqual(chosen["preset"], "at-edm-a")
            self.assertNotIn("auto", chosen)

    def test_as_the_default_and_for_jobs(self):
        with Daemon(latency_objective_s=1e-6, default_pruning="auto", auto_floor="at-edm-d") as d:
            d.generate()
            self.assertEqual(d.generate().json()["pruning"]["preset"], "at-edm-d")
            path = d.generate(headers=ASYNC).headers["Location"]
            wait_until(lambda: d.get(path).json()["state"] == "done", "done")
            self.assertEqual(d.get(path).json()["result"]["pruning"]["preset"], "at-edm-d")
            # What is picked differs from time to time, and is no other request.
            key = {"Idempotency-Key": "k", **ASYNC}
            sent = [d.generate(headers=key).headers["Location"] for _ in range(2)]
            self.assertEqual(sent[0], sent[1])

    def test_options(self):
        for flags, message in ((["--auto-floor", "fast"], "auto_floor: is not a preset"),
                               (["--default-pruning", "auto"], "auto needs latency_objective_s")):
            result = subprocess.run([PROGRAM, "--model", MODEL, *flags], capture_output=True, text=True,
                                    timeout=PATIENCE, check=False)
            self.assertEqual(result.returncode, 2)
            self.assertIn(message, result.stderr)


if __name__ == "__main__":
    unittest.main()
