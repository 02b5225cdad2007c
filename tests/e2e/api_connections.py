#!/usr/bin/env python3
"""Many clients, slow clients, clients that hang up: each gets its own, and none holds up another."""
import json
import os
import socket
import time
import unittest

from daemon import LONG, PATIENCE, SMALL, Daemon, enter_class, images_of, read_response, wait_until


def http_request(fields, path=b"/generate", extra=b""):
    body = json.dumps(fields).encode()
    return (b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%b"
            b"Content-Length: %d\r\n\r\n" % (path, extra, len(body)) + body)


class Connections(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = enter_class(cls, Daemon(max_images=8))

    def tearDown(self):
        self.assertEqual(self.daemon.generate().status, 200)
        # Nothing is left behind.
        wait_until(lambda: self.daemon.gauge("atedm_active_requests") == 0, "no active request")
        self.assertEqual(self.daemon.gauge("atedm_queue_depth"), 0)
        self.assertEqual(self.daemon.gauge("atedm_queue_flops"), 0)

    def test_eight_clients_at_once(self):
        alone = {seed: images_of(self.daemon.generate({"seed": seed})) for seed in range(8)}
        waiting = [(seed, self.daemon.in_background({**SMALL, "seed": seed}))
                   for seed in (*range(8), *range(8), *range(8))]
        for seed, background in waiting:
            self.assertEqual(images_of(background.answer()), alone[seed])

    def test_answers_while_it_computes(self):
        with self.daemon.start():
            wait_until(lambda: self.daemon.gauge("atedm_active_requests") == 1, "it runs")
            for path in ("/healthz", "/readyz", "/metrics", "/metrics/latency"):
                self.assertEqual(self.daemon.get(path).status, 200)
            estimate = self.daemon.post("/v1/estimate", SMALL).json()
            self.assertEqual(estimate["queue"]["active"], 1)

    def loop_seconds(self):
        """Processor time of the daemon's first thread, the loop's."""
        pid = self.daemon.process.pid
        with open(f"/proc/{pid}/task/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def test_the_loop_sleeps(self):
        # While nothing happens, and while a connection waits that has sent more already.
        for data in (b"", http_request(LONG) + http_request(SMALL) * 500):
            with self.daemon.connect() as s:
                s.sendall(data)
                time.sleep(0.3)
                before = self.loop_seconds()
                time.sleep(1)
                self.assertLess(self.loop_seconds() - before, 0.2)

    def test_hang_up_while_it_runs(self):
        gone = self.daemon.gauge("atedm_queue_rejected_total", reason="client_gone")
        s = self.daemon.start()
        wait_until(lambda: self.daemon.gauge("atedm_active_requests") == 1, "it runs")
        s.close()
        wait_until(lambda: self.daemon.gauge("atedm_active_requests") == 0, "it was canceled")
        self.assertEqual(self.daemon.gauge("atedm_queue_rejected_total", reason="client_gone"),
                         gone + 1)

    def test_reset_while_it_runs(self):
        s = self.daemon.start()
        wait_until(lambda: self.daemon.gauge("atedm_active_requests") == 1, "it runs")
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
        wait_until(lambda: self.daemon.gauge("atedm_active_requests") == 0, "it was canceled")

    def test_hang_up_while_it_waits(self):
        with Daemon(max_active=1) as d, d.start():
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            waiting = [d.start(SMALL) for _ in range(5)]
            wait_until(lambda: d.gauge("atedm_queue_depth") == 5, "five wait")
            self.assertGreater(d.gauge("atedm_queue_flops"), 0)
            for s in waiting:
                s.close()
            wait_until(lambda: d.gauge("atedm_queue_depth") == 0, "their places are free")
            self.assertEqual(d.gauge("atedm_active_requests"), 1)

    def test_hang_up_at_every_moment(self):
        data = http_request(SMALL)
        for size in range(0, len(data) + 1, 7):
            with self.daemon.connect() as s:
                s.sendall(data[:size])
        for delay in (0, 0.001, 0.003, 0.01, 0.03, 0.1):
            with self.daemon.connect() as s:
                s.sendall(data)
                time.sleep(delay)

    def test_slow_client(self):
        data = http_request(SMALL)
        with self.daemon.connect() as slow:
            for i in range(0, len(data), 8):
                slow.sendall(data[i:i + 8])
                time.sleep(0.01)
                if i % 80 == 0:
                    self.assertEqual(self.daemon.get("/healthz").status, 200)
            self.assertEqual(read_response(slow).status, 200)

    def test_client_that_does_not_read(self):
        with self.daemon.connect() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.sendall(http_request({**SMALL, "width": 128, "height": 128, "num_images": 8,
                                    "steps": 1}))
            for _ in range(3):
                self.assertEqual(self.daemon.generate().status, 200)
            answer = read_response(s)
            self.assertEqual(len(images_of(answer)), 8)

    def test_keep_alive(self):
        connection = self.daemon.connection()
        for fields in (SMALL, {}, SMALL, {**SMALL, "steps": 0}, SMALL):
            answer = self.daemon.post("/generate", fields, connection=connection)
            self.assertEqual(answer.status, 200 if fields == SMALL else 422)
        connection.close()

    def test_pipelined_requests(self):
        with self.daemon.connect() as s:
            s.sendall(http_request({**SMALL, "seed": 1}) + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" +
                      http_request({**SMALL, "seed": 2}) + http_request({"x": 1}) +
                      http_request({**SMALL, "seed": 3}))
            with s.makefile("rb") as stream:
                answers = [read_response(Shared(stream)) for _ in range(5)]
        self.assertEqual([answer.status for answer in answers], [200, 200, 200, 422, 200])
        seeds = [answers[i].json()["images"][0]["seed"] for i in (0, 2, 4)]
        self.assertEqual(seeds, [1, 2, 3])

    def test_chunked_body(self):
        body = json.dumps(SMALL).encode()
        with self.daemon.connect() as s:
            s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Transfer-Encoding: chunked\r\n\r\n")
            for i in range(0, len(body), 5):
                s.sendall(b"%x\r\n%b\r\n" % (len(body[i:i + 5]), body[i:i + 5]))
            s.sendall(b"0\r\n\r\n")
            self.assertEqual(read_response(s).status, 200)

    def test_expect_continue(self):
        data = http_request(SMALL, extra=b"Expect: 100-continue\r\n")
        head, body = data.split(b"\r\n\r\n", 1)
        with self.daemon.connect() as s:
            s.sendall(head + b"\r\n\r\n")
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 100 "))
            s.sendall(body)
            self.assertEqual(read_response(s).status, 200)

    def test_http_1_0(self):
        body = json.dumps(SMALL).encode()
        with self.daemon.connect() as s:
            s.sendall(b"POST /generate HTTP/1.0\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body) + body)
            self.assertEqual(read_response(s).status, 200)
            self.assertEqual(s.recv(1), b"")


class Shared:
    """Stands for a socket: all responses that are read from it share one buffered stream."""

    def __init__(self, stream):
        self.stream = stream

    def makefile(self, mode):
        return self

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def close(self):
        pass

    def flush(self):
        pass


class Limits(unittest.TestCase):
    def test_idle_and_slow_connections_are_closed(self):
        with Daemon(connection_timeout_s=1) as d, d.connect() as idle, d.connect() as slow:
            data = http_request(SMALL)
            slow.sendall(data[:-2])
            started = time.monotonic()
            self.assertEqual(idle.recv(1), b"")
            self.assertLess(time.monotonic() - started, 20)
            self.assertEqual(slow.recv(1), b"")

    def test_trickling_body_is_closed(self):
        with Daemon(connection_timeout_s=1) as d, d.connect() as s:
            s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Content-Length: 1000\r\n\r\n")
            with self.assertRaises(ConnectionError):
                for _ in range(200):
                    s.sendall(b" ")
                    time.sleep(0.1)

    def test_trickling_headers_are_closed(self):
        with Daemon(connection_timeout_s=1) as d:
            connection = d.connection()
            for _ in range(8):  # one that has requests stays
                self.assertEqual(d.get("/healthz", connection=connection).status, 200)
                time.sleep(0.4)
            connection.close()
            for before in b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n":
                with d.connect() as s, self.assertRaises(ConnectionError):
                    s.sendall(before + b"GET /healthz HTTP/1.1\r\nX: ")
                    for _ in range(200):
                        s.sendall(b"x")
                        time.sleep(0.1)

    def test_a_request_may_take_longer_than_the_timeout(self):
        with Daemon(connection_timeout_s=1, max_active=1) as d:
            with d.start():
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
                waiting = d.in_background(SMALL)
                time.sleep(2.5)
                self.assertEqual(d.gauge("atedm_queue_depth"), 1)
            self.assertEqual(waiting.answer().status, 200)

    def test_more_connections_than_allowed_wait(self):
        with Daemon(max_connections=3) as d:
            idle = [d.connect() for _ in range(3)]
            time.sleep(0.2)
            with d.connect() as waits:
                waits.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                waits.settimeout(0.5)
                with self.assertRaises(TimeoutError):
                    waits.recv(1)
                for s in idle:
                    s.close()
                waits.settimeout(PATIENCE)
                self.assertEqual(read_response(waits).status, 200)


if __name__ == "__main__":
    unittest.main()
