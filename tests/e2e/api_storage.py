#!/usr/bin/env python3
"""The job store's file: what becomes of jobs while it cannot be written."""
import resource
import tempfile
import unittest

from api_jobs import ASYNC, MEDIUM, events, state, submit, wait_state
from daemon import Background, Daemon, wait_until


class FullDisk(unittest.TestCase):
    """A limit on the size of files stands for a disk that is full."""

    def limit(self, d, size):
        hard = resource.prlimit(d.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(d.process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def test_nothing_is_lost(self):
        with Daemon() as d:
            path = submit(d, {**MEDIUM, "steps": 150})
            self.limit(d, 4096)
            refused = d.generate(headers=ASYNC)
            self.assertEqual((refused.status, refused.json()["type"]), (503, "urn:atedm:problem:storage"))
            self.assertIn("Retry-After", refused.headers)
            self.assertEqual(d.generate().status, 200)  # needs no store
            wait_until(lambda: d.gauge("atedm_active_requests") == 0, "the picture is made")
            self.assertNotEqual(state(d, path), "done")
            self.limit(d, resource.RLIM_INFINITY)
            wait_state(d, path)
            self.assertEqual(d.get(path + "/images/0").status, 200)
            self.assertEqual(d.gauge("atedm_queue_rejected_total", reason="storage"), 1)
            self.assertEqual(d.gauge("atedm_store_errors_total", operation="add"), 1)
            self.assertGreaterEqual(d.gauge("atedm_store_errors_total", operation="end"), 1)
            self.assertEqual(d.gauge("atedm_jobs_total", state="done"), 1)
            wait_state(d, submit(d))

    def test_the_daemon_ends_meanwhile(self):
        with tempfile.TemporaryDirectory(prefix="atedmd-") as folder:
            store = folder + "/jobs.db"
            with Daemon(job_store=store) as d:
                key = {"Idempotency-Key": "one"}
                path = submit(d, MEDIUM, key)
                wait_state(d, path, "running")
                self.limit(d, 4096)
                stream = Background(lambda: d.get(path + "/events"))
                waits = Background(lambda: d.generate(MEDIUM, headers=key))
                wait_until(lambda: d.gauge("atedm_store_errors_total", operation="end"), "the picture is made")
                self.assertEqual(d.stop(), 0)
                self.assertNotIn("done", [name for name, _ in events(stream.answer())])
                self.assertEqual(waits.answer().status, 503)
            with Daemon(job_store=store) as d:
                wait_state(d, path)


if __name__ == "__main__":
    unittest.main()
