#!/usr/bin/env python3
"""Faults, of clients by the hundred, of the system and of the worker: the daemon stays up, others are not disturbed, and
memory, descriptors and gauges come back to where they were."""
import json
import os
import resource
import signal
import socket
import struct
import tempfile
import time
import unittest

from daemon import LONG, SMALL, Daemon, enter_class, images_of, read_response, wait_until
from levels import Unchanged, loop_seconds, open_files

MEDIUM = {**SMALL, "width": 48, "height": 48, "steps": 20}
# An answer that no socket's buffers hold: a megabyte.
LARGE = {**SMALL, "width": 256, "height": 256, "num_images": 6, "steps": 1, "pruning": "off"}
IDLE = 2000
CROWD = 200

INJECTION = os.environ["ATEDM_FAULT_INJECTION"] == "1"
FAULTS = ("abort", "segv", "exit", "hang", "oom")

# This process has an end of each connection too.
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 1 << 16, hard))


def post(body, promised=None, extra=""):
    """A request to /generate whose headers promise so many bytes, if not those of the body."""
    return (f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{extra}"
            f"Content-Length: {promised or len(body)}\r\n\r\n").encode() + body


def reset(s):
    """Closes without good-bye: the other side gets a reset."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def small_window(d):
    """A connection whose client takes little at a time."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(60)
    s.connect((d.host, d.port))
    return s


def check_sleeps(case, d):
    """The loop has nothing to do, and does nothing."""
    before = loop_seconds(d.process.pid)
    time.sleep(0.5)
    case.assertLess(loop_seconds(d.process.pid) - before, 0.1)


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.d = enter_class(cls, Daemon(max_connections=IDLE + 100, log_level="warning"))
        # Once of each, so that what is kept for good is there.
        for _ in range(2):
            cls.idle(cls.d)
            cls.d.generate(LARGE, headers={"Idempotency-Key": "large"})

    @staticmethod
    def idle(d, look=None):
        """Connections that say nothing, half of their headers, or half of a body."""
        halves = [b"", b"", b"POST /generate HTTP/1.1\r\nHost:", post(b'{"prompt": ', 1000)]
        sockets = []
        for i in range(IDLE):
            sockets.append(d.connect())
            sockets[-1].sendall(halves[i % len(halves)])
        wait_until(lambda: len(open_files(d.process.pid)) > IDLE, "all are accepted")
        if look:
            look()
        for s in sockets:
            s.close()

    def test_thousands_that_say_nothing(self):
        with Unchanged(self.d) as level:
            def look():
                check_sleeps(self, self.d)
                self.assertGreater(self.d.gauge("process_open_fds"), IDLE)
                level.check_picture()

            self.idle(self.d, look)

    def test_vanish_in_the_middle_of_a_body(self):
        body = json.dumps(SMALL).encode()
        with Unchanged(self.d) as level:
            for i in range(CROWD):
                s = self.d.connect()
                s.sendall(post(body[:i % len(body)], len(body)))
                reset(s) if i % 2 else s.close()
                if i % 50 == 0:
                    level.check_picture()

    def test_vanish_in_the_middle_of_an_answer(self):
        body = json.dumps(LARGE).encode()
        with Unchanged(self.d) as level:
            self.assertGreater(len(self.d.generate(LARGE, headers={"Idempotency-Key": "large"}).body), 1 << 20)
            sockets = [small_window(self.d) for _ in range(CROWD // 4)]
            for s in sockets:
                s.sendall(post(body, extra="Idempotency-Key: large\r\n"))
            for i, s in enumerate(sockets):
                self.assertEqual(len(s.recv(12)), 12)
                if i % 3 == 1:
                    reset(s)
                elif i % 3 == 2:
                    s.close()
            level.check_picture()
            check_sleeps(self, self.d)  # the others do not read
            for s in sockets[::3]:
                s.close()

    def test_event_streams_that_nobody_reads(self):
        with Unchanged(self.d) as level:
            path = self.d.generate({**LONG, "num_images": 1}, headers={"Prefer": "respond-async"}).headers["Location"]
            sockets = [small_window(self.d) for _ in range(CROWD)]
            for s in sockets:
                s.sendall(f"GET {path}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            for i, s in enumerate(sockets):
                if i % 3 == 0:
                    self.assertEqual(len(s.recv(12)), 12)  # and no more
                elif i % 3 == 1:
                    reset(s)
                else:
                    s.close()
            level.check_picture()
            step = self.d.get(path).json()["progress"]["step"]
            wait_until(lambda: self.d.get(path).json()["progress"]["step"] > step, "steps go on")
            self.assertEqual(self.d.request("DELETE", path).json()["state"], "canceled")
            for s in sockets[::3]:
                s.close()


class Descriptors(unittest.TestCase):
    """There are none left."""

    def allow(self, d, count):
        """Lets the daemon have so many more; None: as many as before."""
        pid = d.process.pid
        files = open_files(pid)
        free = [number for number in range(len(files) + count + 1) if number not in files] if count is not None else []
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[count] if free else hard, hard))

    def test_taken_by_connections(self):
        with Daemon() as d, Unchanged(d) as level:
            kept = d.connection()
            self.assertEqual(d.get("/healthz", connection=kept).status, 200)
            self.allow(d, 8)
            sockets = [d.connect() for _ in range(40)]
            time.sleep(0.3)
            check_sleeps(self, d)
            answer = d.generate(level.fields, connection=kept)  # who is in is served
            self.assertEqual(images_of(answer), level.expected)
            for s in sockets:
                s.close()
            self.assertEqual(d.get("/healthz").status, 200)
            self.allow(d, None)
            kept.close()

    def test_they_wait_for_the_end_of_others(self):
        with Daemon() as d, Unchanged(d):
            self.allow(d, 3)
            sockets = [d.connect() for _ in range(3)]
            for s in sockets:
                s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertEqual(read_response(s).status, 200)
            with d.connect() as waits:
                waits.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                waits.settimeout(0.5)
                with self.assertRaises(TimeoutError):
                    waits.recv(1)
                for s in sockets:
                    s.close()
                waits.settimeout(10)
                self.assertEqual(read_response(waits).status, 200)
            self.allow(d, None)

    def test_not_even_one_connection(self):
        with Daemon() as d, Unchanged(d):
            self.allow(d, 0)
            with d.connect() as s:
                s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                time.sleep(0.3)
                check_sleeps(self, d)
                self.allow(d, None)
                s.settimeout(10)
                self.assertEqual(read_response(s).status, 200)

    def test_a_worker_that_ends_meanwhile(self):
        with Daemon() as d, Unchanged(d) as level:
            kept = d.connection()
            running = d.in_background({**LONG, "num_images": 1, "width": 64, "height": 64})
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "at work")
            self.allow(d, 0)
            os.kill(d.workers()[0], signal.SIGKILL)
            time.sleep(1)
            self.assertEqual(d.process.poll(), None)
            self.allow(d, None)
            self.assertEqual(running.answer().status, 200)
            level.check_picture()
            kept.close()


class Worker(unittest.TestCase):
    """A request that its worker does not survive. Prompts do that in builds for tests only."""

    def setUp(self):
        with Daemon() as d:
            self.expected = [images_of(d.generate({**MEDIUM, "seed": seed})) for seed in range(8)]

    def poison(self, fault):
        return {**MEDIUM, "prompt": f"fault: {fault}"}

    def check_good(self, answers):
        for answer, expected in zip(answers, self.expected):
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(images_of(answer), expected)

    @unittest.skipIf(INJECTION, "prompts do that in this build")
    def test_a_release_has_no_faults(self):
        with Daemon() as d:
            for fault in FAULTS:
                self.assertEqual(d.generate({"prompt": f"fault: {fault}"}).status, 200)
            self.assertEqual(d.gauge("atedm_worker_restarts_total", device="cpu"), 0)

    @unittest.skipUnless(INJECTION, "needs -Dfault_injection=true")
    def test_beside_good_ones(self):
        for fault in FAULTS:
            with self.subTest(fault), Daemon(worker_timeout_s=2) as d, Unchanged(d):
                good = [d.in_background({**MEDIUM, "seed": seed}) for seed in range(8)]
                wait_until(lambda: d.gauge("atedm_active_requests") > 1, "at work")
                answer = d.generate(self.poison(fault))
                self.assertEqual(answer.status, 500)
                self.assertEqual(answer.json()["type"], "urn:atedm:problem:internal")
                self.check_good([one.answer() for one in good])
                self.assertEqual(d.gauge("atedm_worker_restarts_total", device="cpu"), 2)
                wait_until(lambda: d.get("/readyz").status == 200, "ready again")

    @unittest.skipUnless(INJECTION, "needs -Dfault_injection=true")
    def test_as_a_job(self):
        headers = {"Prefer": "respond-async"}
        with tempfile.TemporaryDirectory(prefix="atedmd-") as folder:
            store = os.path.join(folder, "jobs.db")
            with Daemon(job_store=store) as d:
                poison, *good = [d.generate(fields, headers=headers).headers["Location"] for fields in
                                 (self.poison("abort"), *({**MEDIUM, "seed": seed} for seed in range(8)))]
                wait_until(lambda: d.get(poison).json()["state"] == "failed", "failed")
                self.assertEqual(d.get(poison).json()["error"]["status"], 500)
                for path, expected in zip(good, self.expected):
                    wait_until(lambda path=path: d.get(path).json()["state"] == "done", "done")
                    self.assertEqual([d.get(path + "/images/0").body], expected)
                ended = d.get(poison).json()
                d.kill()
            with Daemon(job_store=store) as d, Unchanged(d):
                self.assertEqual(d.get(poison).json(), ended)
                self.assertEqual(d.gauge("atedm_worker_restarts_total", device="cpu"), 0)


if __name__ == "__main__":
    unittest.main()
