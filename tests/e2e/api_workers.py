#!/usr/bin/env python3
"""Workers are processes: whatever becomes of one, no accepted request is lost, none is answered twice, and the
service goes on."""
import json
import os
import pathlib
import shutil
import signal
import struct
import sys
import tempfile
import time
import unittest

from checkpoint import GOLDEN, in_checkpoint, write_safetensors
from daemon import LONG, MODEL, PROGRAM, SMALL, Answer, Daemon, images_of, series, wait_until

# Long enough to be caught at work, short enough to be waited for.
MEDIUM = {**SMALL, "width": 64, "height": 64, "steps": 100}


def worker(d):
    found, = wait_until(d.workers, "a worker")
    return found


def is_up(d, device="cpu"):
    return d.gauge("atedm_worker_up", device=device) == 1


def restarts(d, device="cpu"):
    return d.gauge("atedm_worker_restarts_total", device=device)


def wait_active(d, count=1):
    wait_until(lambda: d.gauge("atedm_active_requests") == count, f"{count} at work")


class Loss(unittest.TestCase):
    def test_requests_of_a_killed_worker_are_redone(self):
        with Daemon() as d:
            asked = [{**MEDIUM, "seed": seed, "pruning": pruning}
                     for seed, pruning in ((1, "off"), (2, "at-edm-a"), (3, "at-edm"))]
            alone = [images_of(d.generate(fields)) for fields in asked]
            together = [d.in_background(fields) for fields in asked]
            wait_active(d, 3)
            first = worker(d)
            os.kill(first, signal.SIGKILL)
            for expected, one in zip(alone, together):
                answer = one.answer()
                self.assertEqual(answer.status, 200)
                self.assertEqual(images_of(answer), expected)
            self.assertNotEqual(worker(d), first)
            self.assertEqual(restarts(d), 1)
            self.assertEqual(d.gauge("atedm_images_total", sampler="euler", pruning="off"), 2)
            self.assertEqual(d.metrics()[series("atedm_stage_duration_seconds_count", stage="queue")], 6)
            self.assertIn("signal 9", d.log())

    def test_requests_that_come_while_it_ends(self):
        """The daemon finds the pipe broken before it is told of the end, and writes to it."""
        with Daemon() as d:
            expected = images_of(d.generate(SMALL))
            connections = [d.connection() for _ in range(4)]
            for c in connections:
                self.assertEqual(d.get("/healthz", connection=c).status, 200)
            pid = worker(d)
            os.kill(pid, signal.SIGSTOP)
            unread = d.in_background(SMALL)  # so that the pipe does not just end, but is reset
            wait_active(d)
            d.process.send_signal(signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
            for c in connections:
                c.request("POST", "/generate", json.dumps(SMALL), {"Content-Type": "application/json"})
            time.sleep(0.2)
            d.process.send_signal(signal.SIGCONT)
            for c in connections:
                with c.getresponse() as response:
                    answer = Answer(response.status, response.headers, response.read())
                self.assertEqual(answer.status, 200, answer.body)
                self.assertEqual(images_of(answer), expected)
                c.close()
            self.assertEqual(images_of(unread.answer()), expected)

    def test_readiness_follows(self):
        with Daemon() as d:
            os.kill(worker(d), signal.SIGKILL)
            answer, = wait_until(lambda: [a for a in [d.get("/readyz")] if a.status == 503], "not ready")
            self.assertIn("started again", answer.json()["detail"])
            self.assertEqual(d.get("/healthz").status, 200)
            waiting = d.in_background(SMALL)  # accepted meanwhile
            wait_until(lambda: d.get("/readyz").status == 200, "ready again")
            self.assertTrue(is_up(d))
            self.assertEqual(waiting.answer().status, 200)

    def test_a_request_that_takes_two_workers_down(self):
        with Daemon() as d:
            poison = d.in_background({**LONG, "width": 64, "height": 64})
            wait_active(d)
            others = [d.in_background({**MEDIUM, "seed": seed}) for seed in range(3)]
            wait_active(d, 4)
            os.kill(worker(d), signal.SIGKILL)
            # Suspects run one at a time, so the second time hits whoever is to blame and nobody else.
            wait_until(lambda: restarts(d) == 1 and is_up(d), "another worker")
            wait_active(d, 1)
            os.kill(worker(d), signal.SIGKILL)
            answer = poison.answer()
            self.assertEqual(answer.status, 500)
            self.assertEqual(answer.json()["type"], "urn:atedm:problem:internal")
            for other in others:
                self.assertEqual(other.answer().status, 200)
            self.assertEqual(restarts(d), 2)
            self.assertIn("not tried again", d.log())
            self.assertEqual(d.generate().status, 200)
            self.assertEqual(d.gauge("atedm_active_requests"), 0)

    def test_a_worker_that_hangs_is_ended(self):
        with Daemon(worker_timeout_s=2) as d:
            expected = images_of(d.generate(MEDIUM))
            running = d.in_background(MEDIUM)
            wait_active(d)
            os.kill(worker(d), signal.SIGSTOP)
            answer = running.answer()
            self.assertEqual(answer.status, 200)
            self.assertEqual(images_of(answer), expected)
            self.assertEqual(restarts(d), 1)
            lost, = [line for line in d.log().splitlines() if "worker lost" in line]
            self.assertIn("it had said nothing for 2", lost)

    def test_one_that_hangs_under_impatient_clients(self):
        """None of them waits for as long as the worker may be silent: one after the other, or with breaks between them."""
        for at_once in (3, 1):
            with self.subTest(at_once=at_once), Daemon(worker_timeout_s=2) as d:
                self.assertEqual(d.generate().status, 200)
                os.kill(worker(d), signal.SIGSTOP)
                unread = []
                for _ in range(12):
                    unread.append(d.start())
                    time.sleep(0.5)
                    if len(unread) == at_once:
                        unread.pop(0).close()
                        time.sleep(0.1)
                self.assertEqual(restarts(d), 1)
                self.assertEqual(d.generate().status, 200)
                for connection in unread:
                    connection.close()

    def test_the_silence_of_a_machine_that_stands_still(self):
        with Daemon(worker_timeout_s=1) as d:
            unread = [d.start(LONG) for _ in range(4)]
            wait_active(d, len(unread))
            worker_then = worker(d)
            for stopped in ((d.process.pid,), (d.process.pid, worker_then)):
                for pid in stopped:
                    os.kill(pid, signal.SIGSTOP)
                time.sleep(2.5)
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
                time.sleep(0.5)
                self.assertEqual((worker(d), restarts(d)), (worker_then, 0))
            os.kill(worker_then, signal.SIGSTOP)
            wait_until(lambda: restarts(d) == 1, "it is ended where it alone stands still")
            for connection in unread:
                connection.close()

    def test_a_worker_that_makes_pixels_is_left_alone(self):
        """Many large pictures of few steps: no evaluation ends while they are decoded and encoded, for much longer than
        the time limit."""
        request = {"prompt": "x", "steps": 1, "num_images": 8, "width": 640, "height": 640, "pruning": "off"}
        with Daemon(max_batch=1) as d:
            latency = d.generate(request).json()["latency"]
        silence = latency["vae_s"] + latency["encode_s"]
        with Daemon(max_batch=1, worker_timeout_s=max(0.3, silence / 3)) as d:
            self.assertEqual(d.generate(request).status, 200)
            self.assertEqual(restarts(d), 0)

    def test_an_idle_worker_is_left_alone(self):
        with Daemon(worker_timeout_s=0.5) as d:
            time.sleep(1.5)
            self.assertEqual(restarts(d), 0)
            self.assertEqual(d.generate().status, 200)

    def test_hang_up_while_there_is_no_worker(self):
        with Daemon() as d:
            gone = d.start()
            wait_active(d)
            os.kill(worker(d), signal.SIGKILL)
            gone.close()
            self.assertEqual(d.generate().status, 200)
            self.assertEqual(d.gauge("atedm_active_requests"), 0)
            self.assertEqual(d.gauge("atedm_queue_depth"), 0)


class Program(unittest.TestCase):
    def test_one_of_another_build(self):
        """As an upgrade leaves it beneath a daemon that runs."""
        with tempfile.TemporaryDirectory(prefix="atedmd-") as folder:
            program, own, kept = (pathlib.Path(folder, name) for name in ("atedmd", "atedm-worker", "kept"))
            shutil.copy(PROGRAM, program)
            shutil.copy(pathlib.Path(PROGRAM).with_name("atedm-worker"), own)
            d = Daemon()
            d.command[0] = str(program)
            with d:
                expected = images_of(d.generate())
                own.rename(kept)
                hello = struct.pack("<IIQQ", 0x4d445441, 4, 0, 5)
                own.write_text(f"#!{sys.executable}\nimport os, time\nos.write(3, {hello + b'other'!r})\n"
                               "time.sleep(60)\n", "ascii")
                own.chmod(0o755)
                os.kill(worker(d), signal.SIGKILL)
                waits = d.in_background(SMALL)
                wait_until(lambda: "not of this build" in d.log(), "it is not taken")
                self.assertEqual(d.get("/readyz").status, 503)
                kept.rename(own)
                self.assertEqual(images_of(waits.answer()), expected)


class Model(unittest.TestCase):
    CHANGED = "the model's files have changed since the daemon was started"

    def test_files_that_change_are_told(self):
        """A worker that is started again loads what is there then."""
        with tempfile.TemporaryDirectory(prefix="atedmd-") as folder:
            model = shutil.copytree(MODEL, pathlib.Path(folder) / "model")
            with Daemon(model=model) as d:
                for change, told in ((lambda: None, 0), (lambda: (model / "unet" / "config.json").touch(), 1),
                                     (lambda: (model / "more.txt").write_text("x", encoding="utf-8"), 2)):
                    change()
                    before = restarts(d)
                    os.kill(worker(d), signal.SIGKILL)
                    wait_until(lambda r=before: restarts(d) == r + 1 and is_up(d), "another worker")
                    self.assertEqual(d.log().count(self.CHANGED), told)

    def test_a_checkpoint_and_its_neighbours(self):
        """Several share a folder: of these only the daemon's own counts."""
        with tempfile.TemporaryDirectory(prefix="atedmd-") as folder:
            model = shutil.copytree(GOLDEN / "models/b", pathlib.Path(folder) / "model",
                                    ignore=shutil.ignore_patterns("*.safetensors"))
            own, other = model / "own.safetensors", model / "other.safetensors"
            write_safetensors(own, in_checkpoint("b"))
            with Daemon(model=own) as d:
                self.assertEqual(d.generate().json()["model"], "own")
                for change, told in ((lambda: shutil.copy(own, other), 0), (own.touch, 1)):
                    change()
                    before = restarts(d)
                    os.kill(worker(d), signal.SIGKILL)
                    wait_until(lambda r=before: restarts(d) == r + 1 and is_up(d), "another worker")
                    self.assertEqual(d.log().count(self.CHANGED), told)


class Life(unittest.TestCase):
    def test_workers_end_with_the_daemon(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            d = Daemon()
            d.__enter__()
            pid = worker(d)
            with d.start():
                wait_active(d)
                if number == signal.SIGKILL:
                    d.process.kill()
                    d.process.wait()
            if number == signal.SIGTERM:
                self.assertEqual(d.stop(), 0)

            def ended(pid=pid):
                try:
                    return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
                except FileNotFoundError:
                    return True

            wait_until(ended, "the worker has ended")
            d.__exit__(None, None, None)

    def test_signals_of_a_terminal_are_the_daemon_s(self):
        with Daemon() as d:
            os.kill(worker(d), signal.SIGINT)
            os.kill(worker(d), signal.SIGTERM)
            self.assertEqual(d.generate().status, 200)
            self.assertEqual(restarts(d), 0)

    def test_two_workers_share_the_work(self):
        with Daemon(workers=2, max_active=4) as d:
            wait_until(lambda: is_up(d, "cpu:1"), "both are up")
            alone = images_of(d.generate(MEDIUM))
            together = [d.in_background(MEDIUM) for _ in range(4)]
            wait_active(d, 4)
            for one in together:
                answer = one.answer()
                self.assertEqual(images_of(answer), alone)
                self.assertLessEqual(answer.json()["batch"]["max_size"], 2)
            counts = [d.metrics()[series("atedm_batch_size_count", device=device)] for device in ("cpu", "cpu:1")]
            self.assertGreater(min(counts), 50)

            # One of them goes: the other takes what it had, and the service stays ready.
            together = [d.in_background(MEDIUM) for _ in range(4)]
            wait_active(d, 4)
            os.kill(d.workers()[0], signal.SIGKILL)
            self.assertEqual(d.get("/readyz").status, 200)
            for one in together:
                self.assertEqual(images_of(one.answer()), alone)
            self.assertEqual(restarts(d) + restarts(d, "cpu:1"), 1)

    def test_workers_share_the_processors(self):
        half = (len(os.sched_getaffinity(0)) + 1) // 2
        for given, wanted in (({}, range(1, half + 1)), ({"OMP_NUM_THREADS": "7", "GOMP_SPINCOUNT": "5"}, (7,))):
            with Daemon(workers=2, environment=given) as d:
                wait_until(lambda: len(d.workers()) == 2, "both are there")
                for pid in d.workers():
                    words = pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0")
                    names = [word.partition("=")[0] for word in words]
                    threads, = (word for word in words if word.startswith("OMP_NUM_THREADS="))
                    self.assertIn(int(threads.partition("=")[2]), wanted)
                    self.assertEqual(names.count("GOMP_SPINCOUNT"), 1 if given else 0)  # there is OMP_WAIT_POLICY


if __name__ == "__main__":
    unittest.main()
