#!/usr/bin/env python3
"""Every answer that GET /openapi.json describes is brought about on a live daemon, and is as described: status, headers,
media type, and a body that its schema takes, with no field more."""
import json
import re
import resource
import signal
import tempfile
import time
import unittest

from daemon import LONG, PATIENCE, SMALL, Background, Daemon, images_of, read_png, wait_until
from key_file import KeyFile, bearer, entry, make_key
from openapi_document import document

ASYNC = {"Prefer": "respond-async"}
OFF = {"prompt": "a", "pruning": "off"}

# What no test can bring about without breaking the machine: no memory, a broken worker or a store that cannot be read.
FAULTS = {"500", ("/jobs", "get", "503"), ("/jobs/{id}", "get", "503"), ("/jobs/{id}", "delete", "503"),
          ("/jobs/{id}/images/{n}", "get", "503"), ("/jobs/{id}/events", "get", "503")}


def sse(body):
    """[(event, data)] of a whole stream."""
    return [(name, json.loads(data)) for name, data in re.findall(r"^event: (\w+)\ndata: (.*)$", body.decode(), re.M)]


class Answers(unittest.TestCase):
    """Each documented answer, from a live daemon."""

    @classmethod
    def setUpClass(cls):
        cls.seen = set()  # (path, method, status)
        with Daemon() as d:
            cls.document = document(d)

    def test_every_documented_answer(self):
        for part in (self.success, self.jobs, self.refused, self.full_disk, self.draining, self.keys,
                     self.no_longer_allowed):
            with self.subTest(part.__name__):
                part()
        documented = {(path, method, status) for path, method, operation in self.document.operations()
                      for status in operation["responses"]}
        unseen = documented - self.seen
        self.assertEqual({item for item in unseen if item[2] not in FAULTS and item not in FAULTS}, set())

    def ask(self, d, method, path, status, fields=None, headers=None, kind="", **more):
        """Asks, and holds the answer against the document; `path` may have query and parameters in it."""
        if method == "POST" and fields is not None:
            answer = d.post(path, fields, headers, **more)
        else:
            answer = d.request(method, path, headers=headers, **more)
        self.assertEqual(answer.status, status, (method, path, answer.body))
        return self.check(path, method, answer, kind)

    def check(self, path, method, answer, kind=""):
        route = re.sub(r"/images/[^/]+$", "/images/{n}", re.sub(r"^/jobs/[^/]+", "/jobs/{id}", path.split("?")[0]))
        found = self.document.check_answer(route, method, answer)
        if kind:
            self.assertEqual(found if answer.status < 400 else answer.json()["type"].split(":")[-1], kind)
        self.seen.add((route, method.lower(), str(answer.status)))
        return answer

    def both(self, *arguments, **more):
        for path in ("/generate", "/v1/generate"):
            self.ask(arguments[0], "POST", path, *arguments[1:], **more)

    def success(self):
        """What comes when nothing is wrong; and GETs before and after there is something to tell."""
        gets = [path for path, method, _ in self.document.operations() if method == "get" and "{" not in path]
        with Daemon(wait=False, latency_objective_s=1000) as d:
            for path in gets:
                if path != "/readyz":  # may be either
                    self.ask(d, "GET", path, 200)
            wait_until(lambda: d.get("/readyz").status == 200, "ready")
            self.ask(d, "POST", "/v1/estimate", 200, SMALL)
            self.ask(d, "POST", "/v1/estimate", 200, {**SMALL, "pruning": "auto"})
            answer = self.ask(d, "POST", "/generate", 200,
                              {**SMALL, "prompt": "word " * 100, "pruning": {"flops_budget": 0.98}})
            self.assertTrue(answer.json()["warnings"])
            self.both(d, 200, {**SMALL, "num_images": 2, "pruning": "auto"}, kind="application/json")
            self.both(d, 200, {**SMALL, "pruning": "off"}, {"Accept": "image/png"}, "image/png")
            self.both(d, 200, {**SMALL, "prompt": "word " * 100, "response_format": "png"}, kind="image/png")
            answer = self.ask(d, "POST", "/generate", 200, {**SMALL, "response_format": "url"})
            image = self.ask(d, "GET", answer.json()["images"][0]["url"], 200, kind="image/png")
            read_png(image.body)
            self.ask(d, "POST", "/v1/estimate", 200, SMALL)
            for path in gets:
                self.ask(d, "GET", path, 200)
                head = d.request("HEAD", path)
                self.assertEqual((head.status, head.body), (200, b""))

        for default in ("auto", "off", '{"ratio": 0.3}'):
            with Daemon(latency_objective_s=1000, default_pruning=default) as d:
                self.ask(d, "GET", "/v1/schedules", 200)

    def jobs(self):
        with Daemon(max_active=1) as d:
            self.both(d, 202, SMALL, ASYNC)
            done = self.ask(d, "POST", "/generate", 202, SMALL, {**ASYNC, "Idempotency-Key": "k"}).headers["Location"]
            wait_until(lambda: d.get(done).json()["state"] == "done", "done")
            self.ask(d, "GET", done, 200)
            ended = self.ask(d, "POST", "/generate", 202, SMALL, {**ASYNC, "Idempotency-Key": "k"})
            self.assertEqual(ended.json()["state"], "done")
            again = self.ask(d, "POST", "/generate", 200, SMALL, {"Idempotency-Key": "k"})
            read_png(images_of(again)[0])
            self.both(d, 409, OFF, {"Idempotency-Key": "k"}, "idempotency-conflict")
            self.both(d, 400, OFF, {"Idempotency-Key": "a b"}, "query")
            running = self.ask(d, "POST", "/generate", 202, LONG, ASYNC).headers["Location"]
            waiting = self.ask(d, "POST", "/generate", 202, LONG, ASYNC).headers["Location"]
            wait_until(lambda: d.get(running).json().get("progress", {}).get("images_per_s"), "progress")
            for path, state in ((running, "running"), (waiting, "queued"), (done, "done")):
                self.assertEqual(self.ask(d, "GET", path, 200).json()["state"], state)
                self.assertEqual(self.ask(d, "GET", f"/jobs?state={state}&limit=1000", 200).json()["jobs"][0]["state"], state)
            self.ask(d, "GET", waiting + "/images/0", 404)
            streams = [self.later(d, path + "/events") for path in (running, waiting)]
            time.sleep(0.3)  # some steps
            held = self.later(d, "/generate", LONG, {"Idempotency-Key": "held"})
            held_id = wait_until(lambda: self.newest(d, {running, waiting, done}), "it is a job")
            self.ask(d, "DELETE", "/jobs/" + held_id, 200)
            self.check("/generate", "POST", held(), "canceled")
            self.check("/v1/generate", "POST", d.post("/v1/generate", LONG, {"Idempotency-Key": "held"}), "canceled")
            for path in (waiting, running):
                self.assertEqual(self.ask(d, "DELETE", path, 200).json()["state"], "canceled")
                self.ask(d, "GET", path, 200)
            self.assertIn("canceled", {job["state"] for job in self.ask(d, "GET", "/jobs", 200).json()["jobs"]})
            names = set()
            for path, stream in zip((running, waiting), streams):
                names |= self.check_events(path, stream())
            names |= self.check_events(done, d.get(done + "/events"))
            self.assertEqual(names, {"queued", "progress", "done", "error"})
            page = self.ask(d, "GET", "/jobs?limit=1", 200).json()
            while page["next"] is not None:
                page = self.ask(d, "GET", f"/jobs?limit=1&before={page['next']}", 200).json()
            self.ask(d, "DELETE", done, 204)
            for path in ("", "/events", "/images/0"):
                self.ask(d, "GET", done + path, 404, kind="not-found")
            self.ask(d, "DELETE", done, 404, kind="not-found")
            for query in ("state=ready", "limit=0", "limit=1001", "before=-1"):
                self.ask(d, "GET", "/jobs?" + query, 400, kind="query")

    def no_longer_allowed(self):
        """A job that a daemon with a lower limit finds."""
        with tempfile.TemporaryDirectory() as folder:
            store = folder + "/jobs.db"
            with Daemon(job_store=store) as d:
                path = self.ask(d, "POST", "/generate", 202, LONG, {**ASYNC, "Idempotency-Key": "k"}).headers["Location"]
                d.kill()
            with Daemon(job_store=store, max_steps=LONG["steps"] - 1) as d:
                wait_until(lambda: d.get(path).json()["state"] == "failed", "it fails")
                self.assertEqual(self.ask(d, "GET", path, 200).json()["error"]["type"], "urn:atedm:problem:invalid")
                self.assertEqual(self.check_events(path, d.get(path + "/events")), {"error"})
            with Daemon(job_store=store) as d:
                answer = self.ask(d, "POST", "/generate", 422, LONG, {"Idempotency-Key": "k"}, "invalid")
                self.assertNotIn("errors", answer.json())

    def later(self, d, path, fields=None, headers=None):
        """Asks in a thread; call what is returned for the answer."""
        call = (lambda: d.post(path, fields, headers)) if fields else (lambda: d.get(path))
        return Background(call).answer

    def newest(self, d, known):
        job = d.get("/jobs?limit=1").json()["jobs"][0]
        return None if "/jobs/" + job["id"] in known else job["id"]

    def check_events(self, path, answer):
        self.check(path + "/events", "GET", answer)
        schemas = self.document.response("/jobs/{id}/events", "get", 200)["content"]["text/event-stream"]["x-events"]
        events = sse(answer.body)
        for name, data in events:
            self.assertIn(name, schemas)
            self.document.check(schemas[name], data)
        return {name for name, _ in events}

    def refused(self):
        with Daemon(queue_limit=1, max_active=1, max_body_bytes=4096) as d:
            for path in ("/generate", "/v1/generate", "/v1/estimate"):
                self.ask(d, "POST", path, 400, b"{", kind="not-json")
                self.ask(d, "POST", path, 413, b" " * 4097, kind="too-large")
                self.ask(d, "POST", path, 415, SMALL, {"Content-Type": "text/plain"}, kind="media-type")
                self.ask(d, "POST", path, 422, {"prompt": "", "steps": 0, "~/": 1}, kind="invalid")
                self.ask(d, "POST", path, 422, {f"f{i}": 1 for i in range(40)}, kind="invalid")
            self.ask(d, "POST", "/generate", 200, SMALL)  # the 504 needs a measured speed
            self.both(d, 504, {**LONG, "deadline_s": 0.001}, kind="deadline")
            with d.start():
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
                with d.start():
                    wait_until(lambda: d.gauge("atedm_queue_depth") == 1, "one waits")
                    self.both(d, 503, SMALL, kind="queue-full")
            for path in ("/nowhere", "/openapi"):
                self.document.check({"$ref": "#/components/schemas/Problem"}, d.get(path).json())

    def full_disk(self):
        with Daemon() as d:
            limit = resource.prlimit(d.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(d.process.pid, resource.RLIMIT_FSIZE, (4096, limit[1]))
            self.both(d, 503, SMALL, ASYNC, kind="storage")
            resource.prlimit(d.process.pid, resource.RLIMIT_FSIZE, limit)

    def draining(self):
        with Daemon(drain_timeout_s=1) as d:
            kept = d.connection()
            waiting = d.in_background(LONG)
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            self.ask(d, "GET", "/readyz", 200, connection=kept)
            d.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "signal" in d.log(), "the signal is seen")
            self.ask(d, "GET", "/readyz", 503, kind="draining", connection=kept)
            kept.close()
            self.check("/generate", "POST", waiting.answer(), "draining")
            self.assertEqual(d.process.wait(PATIENCE), 0)

    def keys(self):
        """What is said to be open is open; all else asks for a key, in either header."""
        alice, bob, slow, one = (make_key() for _ in range(4))
        keys = KeyFile(self, entry("alice", alice), entry("bob", bob, disabled=True),
                       entry("slow", slow, requests_per_minute=1, burst=1), entry("one", one, max_queued=1, max_priority=0))
        with Daemon(api_keys=keys) as d:
            closed = 0
            for path, method, operation in document(d).operations():
                here = path.replace("{id}", "0" * 16).replace("{n}", "0")
                fields = SMALL if method == "post" else None
                if operation.get("security") == []:
                    self.ask(d, method.upper(), here, 200, fields)
                    continue
                closed += 1
                self.ask(d, method.upper(), here, 401, fields, kind="unauthorized")
                self.ask(d, method.upper(), here, 401, fields, bearer(make_key()), kind="unauthorized")
                self.ask(d, method.upper(), here, 403, fields, bearer(bob), kind="forbidden")
                self.ask(d, method.upper(), here, 404 if "{" in path else 200, fields, {"X-Api-Key": alice})
            self.assertGreater(closed, 10)
            self.both(d, 403, {**SMALL, "priority": 1}, bearer(one), "forbidden")
            self.ask(d, "POST", "/generate", 200, SMALL, bearer(slow))
            self.both(d, 429, SMALL, bearer(slow), "rate")
            running = self.ask(d, "POST", "/generate", 202, LONG, {**ASYNC, **bearer(one)}).headers["Location"]
            self.both(d, 429, SMALL, bearer(one), "quota")
            self.ask(d, "DELETE", running, 200, headers=bearer(one))


if __name__ == "__main__":
    unittest.main()
