#!/usr/bin/env python3
"""The job store's file: what becomes of jobs while it cannot be written, or is not where it was."""
import contextlib
import pathlib
import resource
import shutil
import sqlite3
import subprocess
import tempfile
import time
import unittest

from api_jobs import ASYNC, MEDIUM, events, state, submit, wait_state
from daemon import LONG, MODEL, PATIENCE, PROGRAM, Background, Daemon, wait_until


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
            self.assertEqual(state(d, path), "running")
            self.assertEqual([job["state"] for job in d.get("/jobs").json()["jobs"]], ["running"])
            self.assertEqual(len(d.get("/jobs?state=running").json()["jobs"]), 1)
            self.limit(d, resource.RLIM_INFINITY)
            wait_state(d, path)
            self.assertEqual(d.get(path + "/images/0").status, 200)
            self.assertEqual(d.gauge("atedm_queue_rejected_total", reason="storage"), 1)
            self.assertEqual(d.gauge("atedm_store_errors_total", operation="add"), 1)
            self.assertGreaterEqual(d.gauge("atedm_store_errors_total", operation="end"), 1)
            self.assertEqual(d.gauge("atedm_jobs_total", state="done"), 1)
            wait_state(d, submit(d))

    def test_room_for_jobs_and_not_for_results(self):
        large = {"width": 256, "height": 256, "num_images": 6, "steps": 1, "pruning": "off"}  # a megabyte
        with Daemon() as d:
            log = pathlib.Path(d.state.name, "jobs.db-wal").stat().st_size
            self.limit(d, log + 600000)
            paths = []
            while len(paths) < 12:
                answer = d.generate(large, headers=ASYNC)
                if answer.status != 202:
                    break
                paths.append(answer.headers["Location"])
                wait_until(lambda: d.gauge("atedm_active_requests") == 0 and
                           d.gauge("atedm_store_errors_total", operation="end") >= len(paths), "the store is full")
            self.assertEqual((answer.status, answer.json()["type"]), (503, "urn:atedm:problem:storage"))
            self.assertIn("Retry-After", answer.headers)
            self.limit(d, resource.RLIM_INFINITY)
            for path in paths:
                wait_state(d, path)
            self.assertEqual(d.generate(large, headers=ASYNC).status, 202)

    def test_the_end_is_not_told_before_it_is_on_disk(self):
        key = {"Idempotency-Key": "one"}
        with Daemon() as d:
            paths = submit(d, LONG, key), submit(d, LONG)
            wait_state(d, paths[0], "running")
            self.limit(d, 4096)
            for path in paths:
                answer = d.request("DELETE", path)
                self.assertEqual((answer.status, answer.json()["type"]), (503, "urn:atedm:problem:storage"))
                self.assertEqual(state(d, path), "running")
            again = d.generate(LONG, headers={**ASYNC, **key})
            self.assertEqual((again.status, again.json()["state"], again.headers["Location"]), (202, "running", paths[0]))
            self.assertEqual(d.gauge("atedm_active_requests"), 0)  # it does not run any more
            self.assertEqual(d.request("DELETE", paths[0]).status, 503)  # cannot be removed either
            self.limit(d, resource.RLIM_INFINITY)
            for path in paths:
                wait_state(d, path, "canceled")
                self.assertEqual(d.request("DELETE", path).status, 204)

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


class Moved(unittest.TestCase):
    """SQLite goes on with a file that nobody finds any more: nothing is accepted into it."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="atedmd-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name, "state")
        self.folder.mkdir()
        self.store = self.folder / "jobs.db"

    def check_refused(self, d):
        refused = d.generate(headers=ASYNC)
        self.assertEqual((refused.status, refused.json()["type"]), (503, "urn:atedm:problem:storage"))
        self.assertIn("was moved or removed", d.log())
        self.assertEqual(d.generate().status, 200)  # needs no store

    def test_moved_and_put_back(self):
        for name in ("jobs.db", "jobs.db-wal", "."):
            with self.subTest(name=name), Daemon(job_store=self.store) as d:
                path = submit(d)
                wait_state(d, path)
                place = (self.folder / name).resolve()
                other = place.with_name(place.name + ".old")
                place.rename(other)
                self.check_refused(d)
                self.assertEqual(d.get(path + "/images/0").status, 200)
                other.rename(place)
                wait_state(d, submit(d))

    def test_removed(self):
        with Daemon(job_store=self.store) as d:
            path = submit(d, {**MEDIUM, "steps": 150})
            shutil.rmtree(self.folder)
            self.check_refused(d)
            self.folder.mkdir()
            self.store.write_bytes(b"")  # another file
            self.check_refused(d)
            wait_state(d, path)  # for those who ask in time
            self.assertEqual(d.get(path + "/images/0").status, 200)

    def test_names_that_mean_something_to_sqlite(self):
        for name in (":memory:", "file:jobs.db?mode=memory"):
            with self.subTest(name=name):
                command = [PROGRAM, "--model", MODEL, "--listen", "127.0.0.1:0", "--job-store", name]
                with subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                    process.stdout.readline()
                    self.assertTrue((self.folder / name).is_file())
                    process.terminate()


class Workers(unittest.TestCase):
    def test_one_that_never_starts_costs_no_job(self):
        """The daemon ends with it, also while another worker has jobs."""
        with tempfile.TemporaryDirectory(prefix="atedmd-") as folder:
            program, worker = pathlib.Path(folder, "atedmd"), pathlib.Path(folder, "atedm-worker")
            real, go = pathlib.Path(PROGRAM).with_name("atedm-worker"), pathlib.Path(folder, "go")
            shutil.copy(PROGRAM, program)
            worker.write_text(f'#!/bin/sh\nmkdir {folder}/first 2>/dev/null && exec {real} "$@"\n'
                              f'while [ ! -e {go} ]; do sleep 0.05; done\nexec {real} "$@" --model /nonexistent\n', "ascii")
            worker.chmod(0o755)
            store = folder + "/jobs.db"
            d = Daemon(job_store=store, workers=2)
            d.command[0] = str(program)
            with d:
                paths = submit(d, LONG), submit(d)
                wait_state(d, paths[0], "running")
                waits = Background(lambda: d.generate(LONG, headers={"Idempotency-Key": "one"}))
                wait_until(lambda: len(d.get("/jobs").json()["jobs"]) == 3, "three jobs")
                go.touch()
                self.assertEqual(waits.answer().status, 503)
                self.assertEqual(d.process.wait(PATIENCE), 1)
            with Daemon(job_store=store) as d:
                self.assertNotIn("failed", [job["state"] for job in d.get("/jobs").json()["jobs"]])
                self.assertEqual(d.request("DELETE", paths[0]).json()["state"], "canceled")
                wait_state(d, paths[1])
                self.assertEqual(len(d.get("/jobs").json()["jobs"]), 3)
                self.assertEqual(d.request("DELETE", d.generate(LONG, headers={"Idempotency-Key": "one", **ASYNC})
                                           .headers["Location"]).status, 200)


class Clock(unittest.TestCase):
    def test_set_back_between_two_daemons(self):
        with tempfile.TemporaryDirectory(prefix="atedmd-") as folder:
            store = folder + "/jobs.db"
            with Daemon(job_store=store) as d:
                blocker = submit(d, LONG)
                path = submit(d, {"deadline_s": 600, "priority": 1})
                d.kill()
            with contextlib.closing(sqlite3.connect(store)) as file, file:
                file.execute("UPDATE jobs SET created = created + 100000, state = 0, ended = 0, answer = NULL, images = 0")
                file.execute("DELETE FROM images")
            with Daemon(job_store=store) as d:
                wait_state(d, path)
                self.assertGreaterEqual(d.get(path).json()["result"]["latency"]["queue_s"], 0)
                self.assertGreaterEqual(d.gauge("atedm_stage_duration_seconds_sum", stage="queue"), 0)
                d.request("DELETE", blocker)


class Many(unittest.TestCase):
    def test_lists_do_not_look_at_all_of_them(self):
        """They would hold up every job that is to be accepted meanwhile."""
        with tempfile.TemporaryDirectory(prefix="atedmd-") as folder:
            store = folder + "/jobs.db"
            with Daemon(job_store=store) as d:
                wait_state(d, submit(d))
            with contextlib.closing(sqlite3.connect(store)) as file, file:
                file.execute("WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 200000)"
                             " INSERT INTO jobs(id, owner, request, created, ended, state, answer, bytes)"
                             " SELECT printf('%016x', n), owner, request, created, ended, state, answer, 1"
                             " FROM number, (SELECT * FROM jobs LIMIT 1)")
            with Daemon(job_store=store) as d:
                began = time.monotonic()
                for _ in range(50):
                    for name in ("failed", "canceled", "queued", "running"):
                        self.assertEqual(d.get("/jobs?state=" + name).json(), {"jobs": [], "next": None})
                self.assertLess(time.monotonic() - began, 3)
                self.assertEqual(len(d.get("/jobs?state=done&limit=1000").json()["jobs"]), 1000)


if __name__ == "__main__":
    unittest.main()
