#!/usr/bin/env python3
"""Jobs and clients by the thousand: what one of them costs does not grow with how many there are, and nobody waits for all the
others."""
import concurrent.futures
import contextlib
import json
import os
import resource
import select
import signal
import socket
import tempfile
import unittest

from daemon import SMALL, Daemon, images_of, wait_until
from levels import is_sanitized, loop_seconds, resident_bytes

ASYNC = {"Prefer": "respond-async"}

# This process has an end of each connection too.
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 1 << 16, hard))


@contextlib.contextmanager
def stopped_worker(d):
    """The worker does nothing meanwhile, and says nothing."""
    worker, = d.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


class Jobs(unittest.TestCase):
    FEW = 500
    MANY = 12000
    SAMPLE = 250

    def submit(self, d, count):
        """Their paths. Each has a place of its own in the queue."""
        def send(i):
            fields = {**SMALL, "priority": i % 21 - 10, "deadline_s": 40000 + i * 7919 % 40000}
            answer = d.generate(fields, headers=ASYNC)
            self.assertEqual(answer.status, 202)
            return answer.headers["Location"]

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            return list(pool.map(send, range(count)))

    def cost(self, d, connection, oldest):
        """Processor seconds of the loop for some that come, and for some old ones that are asked for and canceled."""
        before = loop_seconds(d.process.pid)
        self.submit(d, self.SAMPLE)
        for path in oldest:
            self.assertEqual(d.get(path, connection=connection).status, 200)
            self.assertEqual(d.request("DELETE", path, connection=connection).status, 200)
            self.assertEqual(d.get("/metrics/latency", connection=connection).status, 200)
        return loop_seconds(d.process.pid) - before

    def test_what_one_costs_does_not_grow(self):
        with Daemon(queue_limit=self.MANY + 2 * self.SAMPLE, max_active=1, log_level="warning") as d:
            connection = d.connection()
            with stopped_worker(d):
                paths = self.submit(d, self.FEW)
                few = self.cost(d, connection, paths[1:1 + self.SAMPLE])
                paths = self.submit(d, self.MANY - self.FEW)
                many = self.cost(d, connection, paths[:self.SAMPLE])
            self.assertLess(many, 2 * few + 0.1)
            connection.close()


class Impatient(unittest.TestCase):
    CROWD = 2000

    def hang_up(self, d):
        gone = d.gauge("atedm_queue_rejected_total", reason="client_gone")
        for _ in range(self.CROWD):
            d.start({**SMALL, "prompt": "a " * 4000}).close()
        wait_until(lambda: d.gauge("atedm_queue_rejected_total", reason="client_gone") == gone + self.CROWD, "all are gone")

    def test_nothing_is_kept_for_those_who_left_a_worker_that_hangs(self):
        with Daemon(log_level="warning", queue_limit=self.CROWD) as d:
            expected = images_of(d.generate())
            with stopped_worker(d):
                self.hang_up(d)
                before = resident_bytes(d.process.pid)
                self.hang_up(d)
                if not is_sanitized(d.process.pid):
                    self.assertLess(resident_bytes(d.process.pid), before + (4 << 20))
                self.assertEqual(d.gauge("atedm_active_requests") + d.gauge("atedm_queue_depth"), 0)
            self.assertEqual(images_of(d.generate()), expected)


class Streams(unittest.TestCase):
    CROWD = 3000

    def test_others_do_not_wait_until_all_are_told(self):
        with Daemon(max_connections=self.CROWD + 100, max_active=1, log_level="warning") as d, stopped_worker(d):
            running, waiting = [d.generate(headers=ASYNC).headers["Location"] for _ in range(2)]
            untold = [d.connect() for _ in range(self.CROWD)]
            for s in untold:
                s.sendall(f"GET {waiting}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            for s in untold:
                text = b""
                while b"event: queued" not in text:
                    text += s.recv(4096)
                s.setblocking(False)

            def look():
                for s in list(untold):
                    try:
                        self.assertIn(b"event: error", s.recv(4096))
                    except BlockingIOError:
                        continue
                    untold.remove(s)
                    s.close()
                return not untold

            connection = d.connection()
            self.assertEqual(d.request("DELETE", waiting, connection=connection).status, 200)
            self.assertEqual(d.get("/healthz", connection=connection).status, 200)
            look()
            self.assertTrue(untold, "all were told before anybody else was answered")
            wait_until(look, "all are told")
            self.assertEqual(d.request("DELETE", running, connection=connection).status, 200)
            connection.close()


class Waiters(unittest.TestCase):
    CROWD = 1000

    def test_others_do_not_wait_until_all_are_answered(self):
        body = json.dumps({**SMALL, "width": 128, "height": 128}).encode()
        request = (b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nIdempotency-Key: one\r\n"
                   b"Content-Length: %d\r\n\r\n" % len(body) + body)
        with Daemon(max_connections=self.CROWD + 100, log_level="warning") as d:
            with stopped_worker(d):
                sockets = [d.connect() for _ in range(self.CROWD)]
                for s in sockets:
                    s.sendall(request)
                    s.setblocking(False)
                connection = d.connection()
                for _ in range(2):  # all have been read before these
                    self.assertEqual(d.get("/jobs", connection=connection).status, 200)

            def answered():
                poll = select.poll()  # select() has no numbers over 1023
                for s in sockets:
                    poll.register(s, select.POLLIN)
                return len(poll.poll(0))

            wait_until(answered, "some are answered")
            self.assertEqual(d.get("/healthz", connection=connection).status, 200)
            self.assertLess(answered(), self.CROWD, "all were answered before anybody else")
            wait_until(lambda: answered() == self.CROWD, "all are answered")
            for s in sockets:
                self.assertEqual(s.recv(12), b"HTTP/1.1 200")
                s.close()
            connection.close()


class Readers(unittest.TestCase):
    LARGE = {**SMALL, "width": 256, "height": 256, "num_images": 6, "steps": 1, "pruning": "off", "response_format": "url"}

    def test_stored_results_wait_for_clients_that_do_not_read(self):
        key = {"Idempotency-Key": "large"}
        with tempfile.TemporaryDirectory(prefix="atedmd-") as folder, socket.socket(socket.AF_UNIX) as s, \
                Daemon(max_unread_bytes=1 << 20, listen=f"127.0.0.1:0,unix:{folder}/socket") as d:
            first = d.generate(self.LARGE, headers=key).json()
            image = first["images"][0]["url"]
            expected = d.get(image).body
            s.connect(folder + "/socket")  # whose buffers hold less than TCP's
            body = json.dumps({**self.LARGE, "response_format": "b64_json"}).encode()
            s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body) + body)
            self.assertEqual(s.recv(12), b"HTTP/1.1 200")
            for answer in d.get(image), d.generate(self.LARGE, headers=key):
                self.assertEqual((answer.status, answer.json()["type"]), (503, "urn:atedm:problem:unavailable"))
                self.assertTrue(answer.headers["Retry-After"])
            self.assertEqual(d.generate().status, 200)  # what is new is answered
            s.close()
            wait_until(lambda: d.get(image).status == 200, "it can be had again")
            self.assertEqual(d.get(image).body, expected)
            self.assertEqual(d.generate(self.LARGE, headers=key).json()["images"], first["images"])


if __name__ == "__main__":
    unittest.main()
