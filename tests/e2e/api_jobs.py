#!/usr/bin/env python3
"""Jobs: what was accepted with 202 is done once, whatever happens to connections, workers, the daemon or its disk."""
import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from daemon import (LONG, PATIENCE, SMALL, Daemon, enter_class, images_of, read_png, read_response,
                    wait_until)
from key_file import KeyFile, bearer, entry, make_key

ASYNC = {"Prefer": "respond-async"}
MEDIUM = {**SMALL, "width": 64, "height": 64, "steps": 60}


def submit(d, fields=None, headers=None):
    """The path of a new job."""
    answer = d.generate(fields, headers={**ASYNC, **(headers or {})})
    assert answer.status == 202, answer.body
    return answer.headers["Location"]


def state(d, path):
    return d.get(path).json()["state"]


def wait_state(d, path, wanted="done"):
    wait_until(lambda: state(d, path) == wanted, f"{path} {wanted}")


def events(answer):
    """[(name, data)] of a whole stream."""
    found = []
    for block in answer.body.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            name, data = lines
            assert name.startswith("event: ") and data.startswith("data: "), block
            found.append((name[7:], json.loads(data[6:])))
    return found


class Life(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.d = enter_class(cls, Daemon())

    def test_accepted_then_done(self):
        worker, = self.d.workers()
        os.kill(worker, signal.SIGSTOP)  # or it may be done before it is told of
        try:
            answer = self.d.generate({"num_images": 2}, headers=ASYNC)
        finally:
            os.kill(worker, signal.SIGCONT)
        self.assertEqual(answer.status, 202)
        self.assertEqual(answer.headers["Preference-Applied"], "respond-async")
        path = answer.headers["Location"]
        job = answer.json()
        self.assertEqual(path, "/jobs/" + job["id"])
        self.assertEqual(job["id"], answer.headers["X-Request-Id"])
        self.assertIn(job["state"], ("queued", "running"))
        self.assertEqual(job["progress"]["steps"], SMALL["steps"])
        wait_state(self.d, path)
        job = self.d.get(path).json()
        self.assertNotIn("progress", job)
        self.assertGreaterEqual(job["ended"], job["created"])
        alone = self.d.generate({"num_images": 2})
        mine, his = job["result"], alone.json()
        self.assertEqual(mine["flops"], his["flops"])
        self.assertEqual(mine["pruning"], his["pruning"])
        self.assertEqual([i["seed"] for i in mine["images"]], [7, 8])
        pictures = [self.d.get(i["url"]) for i in mine["images"]]
        self.assertEqual([p.headers["Content-Type"] for p in pictures], ["image/png"] * 2)
        self.assertEqual([p.body for p in pictures], images_of(alone))

    def test_preferences_are_read_as_a_list(self):
        for header, status in (("wait=5, Respond-Async", 202), ("respond-async; x=1", 202),
                               ("respond-asynchronously", 200), ("return=minimal", 200)):
            with self.subTest(header):
                self.assertEqual(self.d.generate(headers={"Prefer": header}).status, status)

    def test_lists_may_be_in_several_lines(self):
        body = json.dumps(SMALL).encode()
        for name, values, status, kind in (
                ("Prefer", ("wait=5", "respond-async"), 202, "application/json"),
                ("Accept", ("application/json;q=0.1", "image/png"), 200, "image/png"),
                ("Accept", ("image/png;q=0.1", "application/json"), 200, "application/json")):
            with self.subTest(values), self.d.connect() as s:
                lines = "".join(f"{name}: {value}\r\n" for value in values)
                s.sendall(f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{lines}"
                          f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
                answer = read_response(s)
                self.assertEqual((answer.status, answer.headers["Content-Type"]), (status, kind))

    def test_a_drawn_seed_is_told(self):
        path = submit(self.d, {"seed": None})
        wait_state(self.d, path)
        image, = self.d.get(path).json()["result"]["images"]
        again = self.d.generate({"seed": image["seed"]})
        self.assertEqual(images_of(again)[0], self.d.get(image["url"]).body)

    def test_url_answers(self):
        answer = self.d.generate({"response_format": "url", "num_images": 2})
        self.assertEqual(answer.status, 200)
        images = answer.json()["images"]
        self.assertEqual([set(i) for i in images], [{"url", "seed", "width", "height"}] * 2)
        self.assertEqual([read_png(self.d.get(i["url"]).body)[:2] for i in images], [(32, 32)] * 2)
        self.assertEqual(images[1]["url"], f"/jobs/{answer.json()['id']}/images/1")

    def test_bad_fields_are_told_at_once(self):
        self.assertEqual(self.d.generate({"steps": 0}, headers=ASYNC).status, 422)

    def test_what_is_not_there(self):
        path = submit(self.d)
        wait_state(self.d, path)
        for missing in ("/jobs/0123456789abcdef", "/jobs/" + "x" * 100, "/jobs/", path + "/images/1",
                        path + "/images/-1", path + "/images/x", path + "/images/", path + "/other",
                        "/jobs/0123456789abcdef/events", "/jobs/0123456789abcdef/images/0"):
            with self.subTest(missing):
                self.assertEqual(self.d.get(missing).status, 404)
        self.assertEqual(self.d.request("DELETE", "/jobs/0123456789abcdef").status, 404)
        self.assertEqual(self.d.request("PUT", path).headers["Allow"], "GET, HEAD, DELETE")
        self.assertEqual(self.d.request("HEAD", path).status, 200)

    def test_a_job_that_is_done_can_be_removed(self):
        path = submit(self.d)
        wait_state(self.d, path)
        self.assertEqual(self.d.request("DELETE", path).status, 204)
        self.assertEqual(self.d.get(path).status, 404)
        self.assertEqual(self.d.get(path + "/images/0").status, 404)

    def test_lists(self):
        paths = [submit(self.d) for _ in range(3)]
        for path in paths:
            wait_state(self.d, path)
        ids = [path[6:] for path in reversed(paths)]
        page = self.d.get("/jobs?limit=2").json()
        self.assertEqual([job["id"] for job in page["jobs"]], ids[:2])
        page = self.d.get(f"/jobs?limit=1&before={page['next']}").json()
        self.assertEqual([job["id"] for job in page["jobs"]], ids[2:])
        # Nothing behind the last page, also where it is full.
        count = len(self.d.get("/jobs?limit=1000").json()["jobs"])
        for limit, more in ((count - 1, True), (count, False), (count + 1, False), (1000, False)):
            self.assertEqual(self.d.get(f"/jobs?limit={limit}").json()["next"] is not None, more, limit)
        done = self.d.get("/jobs?state=done").json()["jobs"]
        self.assertLess(set(ids), {job["id"] for job in done} | {""})
        self.assertEqual({job["state"] for job in done}, {"done"})
        self.assertEqual(self.d.get("/jobs?before=1").json(), {"jobs": [], "next": None})
        for query in ("state=over", "limit=0", "limit=1001", "limit=x", "before=-1", "before=", "limit=1e2"):
            with self.subTest(query):
                self.assertEqual(self.d.get("/jobs?" + query).status, 400)


class Keys(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.d = enter_class(cls, Daemon())

    def jobs(self):
        return {job["id"] for job in self.d.get("/jobs?limit=1000").json()["jobs"]}

    def test_a_retried_submission_finds_the_first(self):
        key = {"Idempotency-Key": "one"}
        first = submit(self.d, {"seed": None}, key)
        before = self.jobs()
        self.assertEqual(submit(self.d, {"seed": None}, key), first)
        wait_state(self.d, first)
        self.assertEqual(submit(self.d, {"seed": None}, key), first)
        self.assertEqual(self.jobs(), before)

    def test_also_where_the_answer_is_waited_for(self):
        key = {"Idempotency-Key": "two"}
        first = self.d.generate({"seed": None}, headers=key)
        second = self.d.generate({"seed": None}, headers=key)
        self.assertEqual((first.status, second.status), (200, 200))
        self.assertEqual(second.json()["id"], first.json()["id"])
        self.assertEqual(images_of(second), images_of(first))
        self.assertEqual(second.json()["flops"], first.json()["flops"])
        picture = self.d.generate({"seed": None}, headers={**key, "Accept": "image/png"})
        self.assertEqual([picture.body], images_of(first))
        self.assertEqual(picture.headers["X-Atedm-Seed"], str(first.json()["images"][0]["seed"]))

    def test_both_wait_for_one(self):
        key = {"Idempotency-Key": "three"}
        body = json.dumps({**MEDIUM, "seed": None}).encode()
        head = (f"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Idempotency-Key: three\r\nContent-Length: {len(body)}\r\n\r\n").encode()
        sockets = [self.d.connect() for _ in range(3)]
        for s in sockets:
            s.sendall(head + body)
        sockets[0].close()  # who has a key comes back: this does not cancel
        answers = [read_response(s) for s in sockets[1:]]
        for s in sockets:
            s.close()
        self.assertEqual([a.status for a in answers], [200, 200])
        self.assertEqual(images_of(answers[0]), images_of(answers[1]))
        self.assertEqual(answers[0].json()["id"], answers[1].json()["id"])

    def test_another_body_is_a_conflict(self):
        key = {"Idempotency-Key": "four"}
        submit(self.d, None, key)
        for headers in (key, {**key, **ASYNC}):
            answer = self.d.generate({"steps": 3}, headers=headers)
            self.assertEqual(answer.status, 409)
            self.assertEqual(answer.json()["type"], "urn:atedm:problem:idempotency-conflict")

    def test_keys_have_a_form(self):
        self.assertEqual(self.d.generate(headers={"Idempotency-Key": "k" * 255}).status, 200)
        for key in ("", "k" * 256, "a b", "\xe9"):
            with self.subTest(key):
                self.assertEqual(self.d.generate(headers={"Idempotency-Key": key}).status, 400)

    def test_two_keys_are_none(self):
        body = json.dumps(SMALL).encode()
        for keys in (("a", "b"), ("a", "a")):
            connection = self.d.connection()
            connection.putrequest("POST", "/generate")
            for name, value in (("Content-Type", "application/json"), ("Content-Length", len(body)),
                                *(("Idempotency-Key", key) for key in keys)):
                connection.putheader(name, value)
            connection.endheaders(body)
            self.assertEqual(connection.getresponse().status, 400)
            connection.close()


class Events(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.d = enter_class(cls, Daemon(max_active=1))

    def test_a_whole_life(self):
        blocker = submit(self.d, MEDIUM)
        path = submit(self.d, MEDIUM)
        answer = self.d.get(path + "/events")
        self.assertEqual(answer.headers["Content-Type"], "text/event-stream")
        found = events(answer)
        names = [name for name, _ in found]
        self.assertEqual(names[0], "queued")
        self.assertEqual(names[-1], "done")
        self.assertEqual(set(names[1:-1]), {"progress"})
        steps = [data["step"] for name, data in found if name == "progress"]
        self.assertEqual(steps, sorted(set(steps)))
        self.assertGreater(len(steps), 3)
        rates = [data["images_per_s"] for name, data in found if name == "progress" and data["step"]]
        self.assertTrue(all(rate > 0 for rate in rates))
        self.assertEqual(found[-1][1], self.d.get(path).json())
        self.assertEqual(state(self.d, blocker), "done")
        self.assertEqual(events(self.d.get(path + "/events")), found[-1:])

    def test_headers_alone(self):
        path = submit(self.d, MEDIUM) + "/events"
        with self.d.connect() as s:
            s.sendall(b"HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
            text = s.makefile("rb").read()  # to the end of the connection
        self.assertIn(b"text/event-stream", text)
        self.assertTrue(text.endswith(b"\r\n\r\n"))
        self.assertEqual(text.count(b"\r\n\r\n"), 1, text)

    def test_no_previews(self):
        for query in ("", "?previews", "?previews=0"):
            path = submit(self.d, {**MEDIUM, "steps": 100})
            self.assertNotIn("preview", [name for name, _ in events(self.d.get(path + "/events" + query))], query)

    def test_previews(self):
        path = submit(self.d, {**MEDIUM, "steps": 100})
        wait_state(self.d, path, "running")
        found = events(self.d.get(path + "/events?previews=1"))
        previews = [data for name, data in found if name == "preview"]
        self.assertGreater(len(previews), 1)
        for preview in previews:
            width, height, pixels, _ = read_png(base64.b64decode(preview["b64_json"]))
            self.assertEqual((width, height), (MEDIUM["width"] // 8, MEDIUM["height"] // 8))
            self.assertEqual(len(pixels), height * (1 + 3 * width))
        steps = [preview["step"] for preview in previews]
        self.assertEqual(steps, sorted(set(steps)))
        self.assertEqual(found[-1][0], "done")
        # Nobody gets them who did not ask, and the picture does not notice.
        other = submit(self.d, {**MEDIUM, "steps": 100})
        self.assertNotIn("preview", [name for name, _ in events(self.d.get(other + "/events"))])
        self.assertEqual(self.d.get(path + "/images/0").body, self.d.get(other + "/images/0").body)

    def test_cancel(self):
        path = submit(self.d, LONG)
        waiting = submit(self.d, LONG)
        wait_state(self.d, path, "running")
        self.assertEqual(state(self.d, waiting), "queued")
        listed = self.d.get("/jobs?state=running").json()["jobs"]
        self.assertEqual([job["id"] for job in listed], [path[6:]])
        connection = self.d.connection()
        connection.request("GET", path + "/events")
        stream = connection.getresponse()
        for job in (path, waiting):
            answer = self.d.request("DELETE", job)
            self.assertEqual((answer.status, answer.json()["state"]), (200, "canceled"))
        text = stream.read().decode()
        connection.close()
        self.assertIn("event: error\n", text)
        self.assertIn("urn:atedm:problem:canceled", text)
        wait_until(lambda: self.d.gauge("atedm_active_requests") == 0, "nothing at work")
        self.assertEqual(self.d.get(path + "/images/0").status, 404)

    def test_a_deadline(self):
        path = submit(self.d, {**LONG, "deadline_s": 0.2})
        wait_state(self.d, path, "failed")
        self.assertEqual(self.d.get(path).json()["error"]["status"], 504)

    def test_clients_that_vanish_or_never_read(self):
        """The job does not notice, and nothing piles up."""
        path = submit(self.d, {**LONG, "num_images": 1})
        deaf = [self.d.connect() for _ in range(20)]
        for s in deaf:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            s.sendall(f"GET {path}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.3)
        for s in deaf[:10]:
            s.close()
        step = self.d.get(path).json()["progress"]["step"]
        wait_until(lambda: self.d.get(path).json()["progress"]["step"] > step + 1, "steps go on")
        self.assertEqual(self.d.request("DELETE", path).json()["state"], "canceled")
        for s in deaf[10:]:
            s.close()


class Disconnect(unittest.TestCase):
    def url_request(self, d):
        s = d.start({**MEDIUM, "steps": 150, "response_format": "url"})
        wait_until(lambda: d.gauge("atedm_active_requests") == 1, "at work")
        s.close()

    def test_ends_the_request(self):
        with Daemon() as d:
            self.url_request(d)
            wait_until(lambda: d.gauge("atedm_active_requests") == 0, "gone")
            wait_until(lambda: d.get("/jobs?state=canceled").json()["jobs"], "canceled")
            self.assertEqual(self.rejected(d), {"client_gone": 1})  # once, under what it was

    def test_or_not(self):
        with Daemon(cancel_on_disconnect="false") as d:
            self.url_request(d)
            d.start(MEDIUM).close()
            wait_until(lambda: d.get("/jobs?state=done").json()["jobs"], "done")
            wait_until(lambda: d.gauge("atedm_images_total", sampler="euler", pruning="at-edm") == 2, "both")
            self.assertEqual(d.gauge("atedm_active_requests"), 0)
            self.assertEqual(self.rejected(d), {})

    def rejected(self, d):
        return {dict(labels)["reason"]: count for (name, labels), count in d.metrics().items()
                if name == "atedm_queue_rejected_total" and count}


class Restart(unittest.TestCase):
    """The store outlives its daemon."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="atedmd-")
        self.addCleanup(folder.cleanup)
        self.store = os.path.join(folder.name, "jobs.db")

    def daemon(self, **options):
        return Daemon(job_store=self.store, max_active=1, **options)

    def test_after_a_kill(self):
        asked = [{**MEDIUM, "seed": seed} for seed in range(3)]
        with self.daemon() as d:
            done = submit(d)
            wait_state(d, done)
            result = d.get(done).body
            paths = [submit(d, fields) for fields in asked]
            wait_state(d, paths[0], "running")
            d.kill()
        with self.daemon() as d:
            self.assertEqual(d.get(done).body, result)
            for path, fields in zip(paths, asked):
                wait_state(d, path)
                self.assertEqual(d.get(path + "/images/0").body, images_of(d.generate(fields))[0])
            listed = [job["id"] for job in d.get("/jobs").json()["jobs"]]
            self.assertEqual(listed, [path[6:] for path in (*reversed(paths), done)])

    def test_a_signal_ends_what_runs_and_leaves_what_waits(self):
        with self.daemon() as d:
            running, waiting = submit(d, MEDIUM), submit(d, MEDIUM)
            wait_state(d, running, "running")
            connection = d.connection()
            connection.request("GET", waiting + "/events")
            stream = connection.getresponse()
            d.process.send_signal(signal.SIGTERM)
            self.assertEqual([name for name in stream.read().decode().split() if name == "done"], [])
            connection.close()
            self.assertEqual(d.process.wait(PATIENCE), 0)
        with self.daemon() as d:
            self.assertEqual(state(d, running), "done")
            wait_state(d, waiting)

    def test_what_the_new_settings_do_not_allow(self):
        with self.daemon() as d:
            submit(d, MEDIUM)
            path = submit(d, {**MEDIUM, "steps": 70})
            d.kill()
        with self.daemon(max_steps=65) as d:
            wait_state(d, path, "failed")
            self.assertEqual(d.get(path).json()["error"]["status"], 422)
            wait_until(lambda: len(d.get("/jobs?state=done").json()["jobs"]) == 1, "the other one")

    def test_the_default_pruning_is_that_of_the_submission(self):
        with self.daemon(default_pruning="at-edm-a") as d:
            long = submit(d, LONG)
            path = submit(d)
            d.kill()
        with self.daemon(default_pruning="off") as d:
            d.request("DELETE", long)
            wait_state(d, path)
            self.assertEqual(d.get(path).json()["result"]["pruning"]["preset"], "at-edm-a")

    def test_deadlines_count_from_the_submission(self):
        with self.daemon() as d:
            long = submit(d, LONG)
            path = submit(d, {"deadline_s": 1})
            d.kill()
        time.sleep(1)
        with self.daemon() as d:
            wait_state(d, path, "failed")
            d.request("DELETE", long)

    def test_a_job_that_ends_its_daemons_is_given_up(self):
        """Suspects run one at a time, so the second time hits whoever is to blame and nobody else."""
        with Daemon(job_store=self.store) as d:
            expected = images_of(d.generate(MEDIUM))[0]
            poison, other = submit(d, LONG), submit(d, MEDIUM)
            for path in (poison, other):
                wait_state(d, path, "running")
            d.kill()
        for _ in range(2):
            with Daemon(job_store=self.store) as d:
                wait_state(d, poison, "running")
                newcomer = submit(d, MEDIUM)
                self.assertEqual([state(d, path) for path in (other, newcomer)], ["queued", "queued"])
                d.kill()
        with Daemon(job_store=self.store) as d:
            wait_state(d, poison, "failed")
            error = d.get(poison).json()["error"]
            self.assertEqual((error["type"], error["detail"]),
                             ("urn:atedm:problem:internal", "3 daemons ended while they ran it"))
            self.assertIn("a job is not tried again", d.log())
            for path in (other, newcomer):
                wait_state(d, path)
            self.assertEqual(d.get(other + "/images/0").body, expected)

    def test_stopping_a_daemon_is_no_fault_of_what_runs(self):
        with self.daemon() as d:
            path = submit(d, LONG)
            d.kill()
        for kill in (False, True, False, True):
            with self.daemon(drain_timeout_s=300 if kill else 0) as d:
                wait_state(d, path, "running")
                if not kill:
                    self.assertEqual(d.stop(), 0)
                    continue
                connection = d.connection()
                d.get("/jobs", connection=connection)
                d.process.send_signal(signal.SIGTERM)
                wait_until(lambda daemon=d: "finishes what it has" in daemon.log(), "drains")
                d.get("/jobs", connection=connection)  # the store answers when it has written what came before
                connection.close()
                d.kill()
        with self.daemon() as d:
            wait_state(d, path, "running")
            self.assertIn("tries=1", d.log())
            d.request("DELETE", path)

    def test_one_daemon_at_a_time(self):
        with self.daemon() as d:
            second = subprocess.run(d.command, capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(second.returncode, 1)
            self.assertIn("jobs.db: another process has it open", second.stderr)
            self.assertEqual(d.get("/healthz").status, 200)

    def test_retention(self):
        with self.daemon(job_retention_bytes=10000) as d:
            paths = []
            for _ in range(4):
                paths.append(submit(d))
                wait_state(d, paths[-1])
            self.assertEqual([d.get(path).status for path in paths], [404, 404, 200, 200])


    def test_what_the_drain_limit_cuts_off_is_left_to_the_next(self):
        with self.daemon(drain_timeout_s=0.2) as d:
            path = submit(d, {**MEDIUM, "steps": 150})
            wait_state(d, path, "running")
            self.assertEqual(d.stop(), 0)
        with self.daemon() as d:
            wait_state(d, path)

    def test_what_it_cuts_off_may_be_on_its_way_to_the_disk(self):
        body = json.dumps(LONG).encode()
        request = (b"POST /generate HTTP/1.1\r\nHost: x\r\nPrefer: respond-async\r\nContent-Type: application/json\r\n"
                   b"Content-Length: %d\r\n\r\n" % len(body)) + body
        for delay_s in (0, 0, 0.0005, 0.001, 0.002, 0.004):
            with self.daemon(drain_timeout_s=0) as d:
                connections = [d.connect() for _ in range(16)]
                for connection in connections:
                    connection.sendall(request)
                time.sleep(delay_s)
                self.assertEqual(d.stop(), 0)
                answers = []
                for connection in connections:
                    try:  # one that was not read when the daemon was told has none
                        answers.append(read_response(connection))
                    except (OSError, http.client.HTTPException):
                        pass
                    connection.close()
            with self.daemon() as d:
                for answer in answers:
                    if answer.status != 503:  # not taken
                        self.assertEqual((answer.status, d.request("DELETE", answer.headers["Location"]).status),
                                         (202, 200))
                left = {job["state"] for job in d.get("/jobs").json()["jobs"]}
                self.assertLessEqual(left, {"canceled"})  # none was taken behind its client's back

    def test_a_model_that_cannot_be_used_costs_no_job(self):
        with self.daemon() as d:
            submit(d, MEDIUM)
            path = submit(d)
            d.kill()
        with Daemon(job_store=self.store, wait=False, dtype="f16") as d:
            self.assertEqual(d.process.wait(PATIENCE), 1)
        with self.daemon() as d:
            wait_state(d, path)


class Owners(unittest.TestCase):
    """Jobs are those of the key that sent them."""

    @classmethod
    def setUpClass(cls):
        cls.alice, cls.bob = make_key(), make_key()
        cls.addCleanup = cls.addClassCleanup  # for KeyFile
        cls.keys = KeyFile(cls, entry("alice", cls.alice), entry("bob", cls.bob, max_queued=1))
        cls.d = enter_class(cls, Daemon(wait=False, api_keys=cls.keys))

    def test_nobody_else_sees_a_job(self):
        path = submit(self.d, None, bearer(self.alice))
        wait_until(lambda: self.d.get(path, headers=bearer(self.alice)).json()["state"] == "done", "done")
        self.assertEqual(self.d.get(path).status, 401)
        for method, at in (("GET", path), ("GET", path + "/images/0"), ("GET", path + "/events"), ("DELETE", path)):
            with self.subTest(f"{method} {at}"):
                self.assertEqual(self.d.request(method, at, headers=bearer(self.bob)).status, 404)
        listed = [[job["id"] for job in self.d.get("/jobs", headers=bearer(key)).json()["jobs"]]
                  for key in (self.alice, self.bob)]
        self.assertIn(path[6:], listed[0])
        self.assertNotIn(path[6:], listed[1])

    def test_nobody_else_sees_one_that_runs(self):
        path = submit(self.d, LONG, bearer(self.alice))
        for method, at in (("GET", path), ("GET", path + "/events"), ("DELETE", path)):
            self.assertEqual(self.d.request(method, at, headers=bearer(self.bob)).status, 404)
        self.assertEqual(self.d.request("DELETE", path, headers=bearer(self.alice)).json()["state"], "canceled")

    def test_keys_of_idempotency_are_each_client_s_own(self):
        key = {"Idempotency-Key": "same"}
        paths = {submit(self.d, None, {**key, **bearer(owner)}) for owner in (self.alice, self.bob)}
        self.assertEqual(len(paths), 2)
        for path in paths:
            wait_until(lambda: any(self.d.get(path, headers=bearer(owner)).json().get("state") == "done"
                                   for owner in (self.alice, self.bob)), "done")

    def test_a_job_counts_until_its_end(self):
        path = submit(self.d, LONG, bearer(self.bob))
        self.assertEqual(self.d.generate(headers={**ASYNC, **bearer(self.bob)}).status, 429)
        self.d.request("DELETE", path, headers=bearer(self.bob))
        submit(self.d, None, bearer(self.bob))
        wait_until(lambda: self.d.generate(headers=bearer(self.bob)).status == 200, "the quota is free again")


if __name__ == "__main__":
    unittest.main()
