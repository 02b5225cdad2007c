#!/usr/bin/env python3
"""API keys: who is let in where, what each key may do, how often and how many requests at a time."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import unittest

from daemon import LONG, MODEL, PATIENCE, PROGRAM, SMALL, Background, Daemon, enter_class, \
    read_response, wait_until
from key_file import KeyFile, bearer, entry, make_key, reload, start

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROBLEM = "urn:atedm:problem:"
OPEN_ROUTES = {"/", "/healthz", "/readyz", "/metrics", "/openapi.json"}


class KeyTest(unittest.TestCase):
    def check_problem(self, answer, status, kind):
        self.assertEqual((answer.status, answer.json()["type"]), (status, PROBLEM + kind), answer.body)
        self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
        return answer

    def check_denied(self, answer, error=None):
        """401 with the challenge of RFC 6750."""
        self.check_problem(answer, 401, "unauthorized")
        challenge = "Bearer" + (f' error="{error}"' if error else "")
        self.assertEqual(answer.headers["WWW-Authenticate"], challenge)


class Access(KeyTest):
    @classmethod
    def setUpClass(cls):
        cls.alice, cls.bob, cls.off, cls.old = (make_key() for _ in range(4))
        cls.addCleanup = cls.addClassCleanup  # for KeyFile
        keys = KeyFile(cls, entry("alice", cls.alice, max_priority=2), entry("bob", cls.bob, max_priority=-3),
                       entry("off", cls.off, disabled=True),
                       entry("old", cls.old, expires="2026-01-01T00:00:00Z"))
        cls.daemon = enter_class(cls, Daemon(api_keys=keys))

    def generate(self, key, fields=None):
        return self.daemon.generate(fields, headers=bearer(key))

    def last_line(self, answer):
        identifier = answer.headers["X-Request-Id"]
        line, = [line for line in self.daemon.log().splitlines()
                 if f'id="{identifier}"' in line and " request " in line]
        return line

    def test_right(self):
        answer = self.generate(self.alice)
        self.assertEqual(answer.status, 200)
        self.assertIn('client="alice"', self.last_line(answer))
        for headers in ({"X-Api-Key": self.bob}, {"authorization": f"bearer {self.bob}"},
                        {"Authorization": f"Bearer   {self.bob}"},
                        {"Authorization": "Basic eDp5", "X-Api-Key": self.bob}):
            answer = self.daemon.generate({"priority": -3}, headers=headers)
            self.assertEqual(answer.status, 200, headers)
            self.assertIn('client="bob"', self.last_line(answer))

    def test_missing(self):
        for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}):
            self.check_denied(self.daemon.generate(headers=headers))
        answer = self.daemon.generate()
        self.assertNotIn("client=", self.last_line(answer))

    def test_wrong(self):
        for key in ("x", self.alice + "0", self.alice[:-1], self.alice.upper(), make_key(), "a" * 20000):
            self.check_denied(self.generate(key), "invalid_token")
        # Bearer wins: a second key cannot help a wrong one.
        self.check_denied(self.daemon.generate(headers={**bearer(make_key()), "X-Api-Key": self.bob}),
                          "invalid_token")

    def test_disabled_and_expired(self):
        for key, name, why in ((self.off, "off", "disabled"), (self.old, "old", "expired")):
            answer = self.check_problem(self.generate(key), 403, "forbidden")
            self.assertIn(why, answer.json()["detail"])
            self.assertIn(f'client="{name}"', self.last_line(answer))

    def test_where(self):
        for path in OPEN_ROUTES:
            self.assertEqual(self.daemon.get(path).status, 200, path)
            self.assertEqual(self.daemon.get(path, headers=bearer("wrong")).status, 200, path)
        for path in self.daemon.paths() - OPEN_ROUTES:
            self.check_denied(self.daemon.get(path))
            self.assertEqual(self.daemon.request("HEAD", path).status, 401, path)
            self.assertEqual(self.daemon.get(path, headers=bearer(self.alice)).status, 200, path)
        for path in ("/generate", "/v1/generate", "/v1/estimate"):
            self.check_denied(self.daemon.post(path, SMALL))
            self.check_denied(self.daemon.get(path))
        self.assertEqual(self.daemon.get("/nowhere").status, 404)

    def test_before_the_body(self):
        with self.daemon.connect() as s:
            s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
            self.check_denied(read_response(s))
        # Key before type, size and content.
        self.check_denied(self.daemon.request("POST", "/generate", b"{", {"Content-Type": "text/plain"}))
        self.check_denied(self.daemon.post("/generate", b" " * 2000000))

    def test_priority(self):
        self.assertEqual(self.generate(self.alice, {"priority": 2}).status, 200)
        for path in ("/generate", "/v1/estimate"):
            answer = self.daemon.post(path, {**SMALL, "priority": 3}, headers=bearer(self.alice))
            self.check_problem(answer, 403, "forbidden")
            self.assertIn("up to 2", answer.json()["detail"])
        self.check_problem(self.generate(self.bob), 403, "forbidden")
        # What is wrong anyway is told first.
        self.check_problem(self.generate(self.alice, {"priority": 11}), 422, "invalid")

    def test_no_key_in_the_log(self):
        self.generate(self.alice)
        self.generate(self.alice + "0")
        self.daemon.get("/v1/models?key=" + self.alice, headers={"X-Api-Key": self.off})
        log = self.daemon.log()
        for key in (self.alice, self.bob, self.off, self.old):
            self.assertNotIn(key[6:40], log)


class Admin(KeyTest):
    def test_jobs_of_others(self):
        alice, bob, root = make_key(), make_key(), make_key()
        keys = KeyFile(self, entry("alice", alice), entry("bob", bob), entry("root", root, admin=True))
        with Daemon(api_keys=keys, max_active=1) as d:
            done = d.generate(headers={**bearer(alice), "Prefer": "respond-async"}).headers["Location"]
            wait_until(lambda: d.get(done, headers=bearer(alice)).json()["state"] == "done", "done")
            path = d.post("/generate", LONG, {**bearer(alice), "Prefer": "respond-async"}).headers["Location"]

            def listed(key):
                return [(job["id"], job["owner"]) for job in d.get("/jobs", headers=bearer(key)).json()["jobs"]]

            both = [(p.rpartition("/")[2], "alice") for p in (path, done)]
            self.assertEqual([listed(key) for key in (alice, bob, root)], [both, [], both])
            for p in (path, done):
                self.check_problem(d.get(p, headers=bearer(bob)), 404, "not-found")
                self.check_problem(d.request("DELETE", p, headers=bearer(bob)), 404, "not-found")
                self.assertEqual(d.get(p, headers=bearer(root)).json()["owner"], "alice")
            self.assertEqual(d.get(done + "/images/0", headers=bearer(root)).status, 200)
            self.check_problem(d.get(done + "/images/0", headers=bearer(bob)), 404, "not-found")
            self.check_problem(d.get(path + "/events", headers=bearer(bob)), 404, "not-found")
            d.request("DELETE", path, headers=bearer(root))
            wait_until(lambda: d.get(path, headers=bearer(alice)).json()["state"] == "canceled", "canceled")
            self.assertIn(b"problem:canceled", d.get(path + "/events", headers=bearer(root)).body)
            self.assertEqual(d.request("DELETE", done, headers=bearer(root)).status, 204)
            self.check_problem(d.get(done, headers=bearer(alice)), 404, "not-found")


class Command(KeyTest):
    def test_a_key_of_the_command_opens(self):
        made = json.loads(subprocess.run([os.environ["ATEDM"], "key", "--name", "carol", "--json"],
                                         capture_output=True, check=True, timeout=PATIENCE).stdout)
        with Daemon(api_keys=KeyFile(self, made["entry"])) as d:
            self.check_denied(d.generate())
            self.assertEqual(d.generate(headers=bearer(made["key"])).status, 200)

    def test_the_example_of_the_documentation(self):
        text = (ROOT / "api.md").read_text(encoding="utf-8")
        example, = re.findall(r"^```\n(\{\"keys\".*?)^```", text, re.MULTILINE | re.DOTALL)
        keys = KeyFile(self)
        keys.write(example)
        with Daemon(api_keys=keys) as d:
            self.check_denied(d.generate())
        code = (ROOT / "server/client_keys.c").read_text(encoding="utf-8")
        fields = re.findall(r'"(\w+)"', re.search(r"key_fields\[\] = \{(.*?)\}", code, re.DOTALL).group(1))
        self.assertGreater(len(fields), 5)
        for field in fields:
            self.assertRegex(text, rf"(?m)^\| `{field}` \|")

    def test_without_a_file_keys_mean_nothing(self):
        with Daemon() as d:
            for headers in ({}, bearer("anything"), {"X-Api-Key": make_key()}):
                answer = d.generate({"priority": 10}, headers=headers)
                self.assertEqual(answer.status, 200)
            self.assertNotIn("client=", d.log())


class Rotation(KeyTest):
    def test_old_out_new_in(self):
        old, new = make_key(), make_key()
        keys = KeyFile(self, entry("alice", old))
        with Daemon(api_keys=keys, max_active=1) as d:
            running = Background(lambda: d.post("/generate", {**LONG, "steps": 20, "num_images": 1},
                                                headers=bearer(old)))
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            waiting = Background(lambda: d.generate(headers=bearer(old)))
            wait_until(lambda: d.gauge("atedm_queue_depth") == 1, "it waits")
            self.check_denied(d.generate(headers=bearer(new)), "invalid_token")
            keys.set(entry("alice", new))
            self.assertIn('keys="changed alice"', reload(d))
            self.check_denied(d.generate(headers=bearer(old)), "invalid_token")
            self.assertIsNone(running.result)
            self.assertEqual(d.generate(headers=bearer(new)).status, 200)
            for background in (running, waiting):
                self.assertEqual(background.answer().status, 200)

    def test_all_keys_of_the_largest_file_are_replaced(self):
        def names(letter):
            return [entry(f"{letter}{i:04}" + "n" * 59, make_key()) for i in range(1023)]
        old, new = make_key(), make_key()
        keys = KeyFile(self, entry("a" * 64, old), *names("o"))
        with Daemon(api_keys=keys) as d:
            self.assertEqual(d.generate(headers=bearer(old)).status, 200)
            keys.set(entry("b" * 64, new), *names("p"))
            self.assertIn('keys="added ', reload(d))
            self.check_denied(d.generate(headers=bearer(old)), "invalid_token")
            self.assertEqual(d.generate(headers=bearer(new)).status, 200)

    def test_a_client_that_is_taken_out(self):
        alice, bob = make_key(), make_key()
        keys = KeyFile(self, entry("alice", alice, max_queued=1), entry("bob", bob))
        with Daemon(api_keys=keys) as d:
            with start(d, alice):
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
                keys.set(entry("bob", bob))
                self.assertIn('keys="removed alice"', reload(d))
                self.check_denied(d.generate(headers=bearer(alice)), "invalid_token")
            wait_until(lambda: d.gauge("atedm_active_requests") == 0, "it was given up")
            keys.set(entry("alice", alice, max_queued=1), entry("bob", bob))
            self.assertIn('keys="added alice"', reload(d))
            self.assertEqual(d.generate(headers=bearer(alice)).status, 200)

    def test_a_key_that_goes_while_its_body_comes(self):
        alice = make_key()
        keys = KeyFile(self, entry("alice", alice))
        body = json.dumps(SMALL).encode()
        with Daemon(api_keys=keys) as d, d.connect() as s:
            s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"X-Api-Key: %b\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
                      % (alice.encode(), len(body)))
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 100 "))
            keys.set()
            reload(d)
            s.sendall(body)
            self.check_denied(read_response(s), "invalid_token")


class Limits(KeyTest):
    def rejected(self, d, reason):
        return d.gauge("atedm_queue_rejected_total", reason=reason)

    def test_rate(self):
        alice, bob = make_key(), make_key()
        keys = KeyFile(self, entry("alice", alice, requests_per_minute=20, burst=2), entry("bob", bob))
        with Daemon(api_keys=keys) as d:
            def generate(fields=None):
                return d.generate({"steps": 1, **(fields or {})}, headers=bearer(alice))
            started = time.monotonic()
            for _ in range(2):
                self.assertEqual(generate().status, 200)
            answer = self.check_problem(generate(), 429, "rate")
            self.assertLess(time.monotonic() - started, 3, "too slow a machine for this test")
            seconds = int(answer.headers["Retry-After"])
            self.assertIn(seconds, (1, 2, 3))
            # Others, other routes, and what is refused for another reason are not held up, nor do they count.
            self.assertEqual(d.generate(headers=bearer(bob)).status, 200)
            self.assertEqual(d.post("/v1/estimate", SMALL, headers=bearer(alice)).status, 200)
            self.assertEqual(generate({"steps": 0}).status, 422)
            self.assertEqual(self.rejected(d, "rate"), 1)
            time.sleep(seconds)
            self.assertEqual(generate().status, 200, "as told")
            self.check_problem(generate(), 429, "rate")
            self.assertEqual(self.rejected(d, "rate"), 2)

    def fill(self, d, key, count):
        sockets = [start(d, key) for _ in range(count)]
        for s in sockets:
            self.addCleanup(s.close)
        wait_until(lambda: d.gauge("atedm_active_requests") + d.gauge("atedm_queue_depth") == count,
                   f"{count} are there")
        return sockets

    def check_level(self, d, key, level):
        """Exactly so many requests at a time."""
        sockets = self.fill(d, key, level)
        answer = self.check_problem(d.generate(headers=bearer(key)), 429, "quota")
        self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        return sockets

    def leave(self, d, sockets):
        for s in sockets:
            s.close()
        wait_until(lambda: d.gauge("atedm_active_requests") + d.gauge("atedm_queue_depth") == 0, "all gone")

    def test_quota_returns(self):
        alice, bob = make_key(), make_key()
        keys = KeyFile(self, entry("alice", alice, max_queued=3), entry("bob", bob))
        with Daemon(api_keys=keys, max_active=1) as d:
            sockets = self.check_level(d, alice, 3)  # one runs, two wait
            self.assertEqual(d.generate({"deadline_s": 0.3}, headers=bearer(bob)).status, 504, "bob's may wait")
            self.assertEqual(self.rejected(d, "quota"), 1)
            # After hang-ups, deadlines, failures, refusals and answers the level is what it was.
            self.leave(d, sockets)
            self.leave(d, self.check_level(d, alice, 3))
            for fields, status in (({}, 200), ({"response_format": "png"}, 200), ({"steps": 0}, 422),
                                   ({**LONG, "deadline_s": 0.3}, 504), ({"deadline_s": 1e-9}, 504)):
                for _ in range(4):
                    self.assertEqual(d.generate(fields, headers=bearer(alice)).status, status, fields)
            self.leave(d, self.check_level(d, alice, 3))

    def test_a_request_that_is_sent_again_is_no_other(self):
        alice = make_key()
        with Daemon(api_keys=KeyFile(self, entry("alice", alice, max_queued=1, requests_per_minute=1))) as d:
            def send(fields=None, key="x1"):
                return d.post("/generate", {**LONG, **(fields or {})},
                              headers={**bearer(alice), "Prefer": "respond-async", "Idempotency-Key": key})
            first = send()
            self.assertEqual(first.status, 202)
            for _ in range(3):
                again = send()
                self.assertEqual(again.status, 202)
                self.assertEqual(again.json()["id"], first.json()["id"])
            self.check_problem(send({"seed": 7}), 409, "idempotency-conflict")
            self.assertEqual(send(key="x2").status, 429)
            self.assertEqual(d.request("DELETE", first.headers["Location"], headers=bearer(alice)).status, 200)

    def test_nor_is_it_when_the_first_has_ended(self):
        alice = make_key()
        store = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, store)
        options = {"api_keys": KeyFile(self, entry("alice", alice, max_queued=1, requests_per_minute=2)),
                   "job_store": f"{store}/jobs"}
        def send(d, fields=None, **headers):
            return d.generate(fields, headers={**bearer(alice), "Idempotency-Key": "x1", **headers})
        with Daemon(**options) as d:
            first = send(d)
            self.assertEqual(first.status, 200)
            held = d.post("/generate", LONG, headers={**bearer(alice), "Prefer": "respond-async"})
            self.assertEqual(held.status, 202)  # the one that alice may have open, the last one of this minute
            self.check_again(d, send, first)
            self.assertEqual(d.generate(headers=bearer(alice)).status, 429)
            self.assertEqual(d.request("DELETE", held.headers["Location"], headers=bearer(alice)).status, 200)
        with Daemon(**options) as d:  # with a full bucket, which this does not empty
            self.check_again(d, send, first)
            for status in (200, 200, 429):
                self.assertEqual(d.generate(headers=bearer(alice)).status, status)
                self.check_again(d, send, first)

    def check_again(self, d, send, first):
        for _ in range(3):
            again = send(d)
            self.assertEqual((again.status, again.json()["id"]), (200, first.json()["id"]))
            self.assertEqual(send(d, Prefer="respond-async").json()["id"], first.json()["id"])
            self.check_problem(send(d, {"prompt": "another"}), 409, "idempotency-conflict")

    def test_many_at_once_are_one(self):
        alice = make_key()
        with Daemon(api_keys=KeyFile(self, entry("alice", alice, max_queued=1, requests_per_minute=1))) as d:
            body = json.dumps({**LONG, "steps": 3}).encode()
            head = (f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {alice}\r\n"
                    f"Idempotency-Key: one\r\nContent-Length: {len(body)}\r\n\r\n").encode()
            sockets = [d.connect() for _ in range(8)]
            for s in sockets:
                s.sendall(head + body)
            answers = [read_response(s) for s in sockets]
            for s in sockets:
                s.close()
            self.assertEqual({200}, {answer.status for answer in answers})
            self.assertEqual(1, len({answer.json()["id"] for answer in answers}))

    def test_quota_when_requests_fail(self):
        alice = make_key()
        keys = KeyFile(self, entry("alice", alice, max_queued=1))
        with Daemon() as d:
            weights = int(d.gauge("atedm_device_memory_bytes", device="cpu"))
        with Daemon(api_keys=keys, memory_limit=weights + 1) as d:
            for _ in range(3):
                self.assertEqual(d.post("/generate", LONG, headers=bearer(alice)).status, 422)

    def test_quota_when_the_queue_is_full(self):
        alice, bob = make_key(), make_key()
        keys = KeyFile(self, entry("alice", alice, max_queued=1), entry("bob", bob))
        with Daemon(api_keys=keys, max_active=1, queue_limit=1) as d:
            sockets = self.fill(d, bob, 2)
            for _ in range(3):
                answer = d.generate(headers=bearer(alice))
                self.check_problem(answer, 503, "queue-full")
            self.leave(d, sockets)

    def test_hang_ups_at_every_moment(self):
        alice = make_key()
        with Daemon(api_keys=KeyFile(self, entry("alice", alice, max_queued=2))) as d:
            for i in range(40):
                s = start(d, alice, SMALL)
                time.sleep(i * 0.002)
                s.close()
            wait_until(lambda: d.gauge("atedm_active_requests") == 0, "all gone")
            self.leave(d, self.check_level(d, alice, 2))


class BadFile(KeyTest):
    def wrong_files(self):
        good = entry("alice", make_key())
        yield "{", "file.json"
        yield {"keys": [good, good]}, "keys[1]"
        yield {"keys": [{**good, "colour": 1}]}, "colour"
        yield {"keys": [{**good, "hash": make_key()}]}, "hash"
        yield {"keys": [{**good, "expires": "tomorrow"}]}, "expires"

    def test_at_the_start(self):
        for content, part in self.wrong_files():
            keys = KeyFile(self)
            keys.write(content)
            result = subprocess.run([PROGRAM, "--model", MODEL, "--listen", "127.0.0.1:0", "--api-keys", str(keys)],
                                    capture_output=True, text=True, timeout=PATIENCE, check=False)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn("api_keys: ", result.stderr)
            self.assertIn(part, result.stderr)
            self.assertNotIn("atedm_", result.stderr)

    def test_at_a_reload(self):
        alice = make_key()
        keys = KeyFile(self, entry("alice", alice))
        with Daemon(api_keys=keys) as d:
            for content, part in self.wrong_files():
                keys.write(content)
                line = reload(d, "not reloaded")
                self.assertIn(part, line)
                self.assertIn(" error ", line)
                self.assertEqual(d.generate(headers=bearer(alice)).status, 200)
                self.check_denied(d.generate())
            keys.path.unlink()
            reload(d, "not reloaded")
            self.assertEqual(d.generate(headers=bearer(alice)).status, 200)
            self.assertNotIn("atedm_", d.log().replace("atedm_keys", ""))


if __name__ == "__main__":
    unittest.main()
