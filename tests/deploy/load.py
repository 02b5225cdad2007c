"""Puts a known load on a daemon and counts the requests, so that tests can compare the metrics with what happened."""
import collections
import json
import os
import re
import resource
import signal
import time

from daemon import LONG, SMALL, Daemon, wait_until
from key_file import bearer, entry, make_key

ASYNC = {"Prefer": "respond-async"}

# Requests that are made one after the other, so that none shares UNet evaluations with another. They have guidance or not,
# pruning or not, one image or several, and use both paths.
ASKED = [({"steps": 2}, "/generate"),
         ({"steps": 3, "num_images": 3, "width": 64}, "/generate"),
         ({"steps": 4, "pruning": "off"}, "/v1/generate"),
         ({"steps": 2, "pruning": {"ratio": 0.5, "schedule": "uniform"}, "height": 96}, "/generate"),
         ({"steps": 1, "guidance_scale": 1, "width": 64, "pruning": "at-edm-b"}, "/generate")]


def route_of(path):
    """The route of a path, as the daemon's metrics name it."""
    path = path.partition("?")[0]
    path = re.sub(r"^/jobs/[0-9a-f]{16}", "/jobs/{id}", path)
    path = re.sub(r"/images/\d+$", "/images/{n}", path)
    return path if path != "/nowhere" else "other"


class CountingDaemon(Daemon):
    """A daemon that counts every answer to this client, by (route, code)."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.answers = collections.Counter()

    def request(self, method, path, body=None, headers=None, connection=None):
        answer = super().request(method, path, body, headers, connection)
        self.answers[route_of(path), str(answer.status)] += 1
        return answer

    def gone(self, n):
        """Counts `n` clients that hung up before their answer."""
        self.answers["/generate", "499"] += n


class Load:
    """Makes the requests, and keeps what was requested and answered."""

    def __init__(self, case, daemon, keys, seen):
        """`seen`: a function that sends a query to Prometheus and returns the result."""
        self.case, self.d, self.keys, self.seen = case, daemon, keys, seen
        self.bodies = []    # answers of finished generations
        self.fields = []    # the fields of their requests, in the same order
        self.rejected = collections.Counter()
        self.jobs = collections.Counter()
        self.full_disk_s = 0
        self.restarts = 0

    def expect(self, answer, status):
        self.case.assertEqual(answer.status, status, answer.body)
        return answer

    def ask(self, fields, path="/generate", status=200, key="admin", headers=None):
        body = json.dumps({**SMALL, **fields}).encode()
        return self.expect(self.d.request("POST", path, body, {"Content-Type": "application/json", **bearer(self.keys[key]),
                                                               **(headers or {})}), status)

    def get(self, path, method="GET"):
        return self.d.request(method, path, headers=bearer(self.keys["admin"]))

    def start(self, fields):
        """Sends a request and does not wait for the answer; returns the socket."""
        body = json.dumps(fields).encode()
        s = self.d.connect()
        s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer %b\r\n"
                  b"Content-Length: %d\r\n\r\n" % (self.keys["admin"].encode(), len(body)) + body)
        return s

    def has(self, name, value):
        """Waits for the value of a gauge. Asks a path that Prometheus does not scrape, so that the counts stay exact."""
        wait_until(lambda: self.get("/metrics/latency").json()["queue"][name] == value, f"{name} is {value}")

    def done(self, fields, answer):
        self.fields.append({**SMALL, **fields})
        self.bodies.append(answer)

    def pictures(self):
        for fields, path in ASKED:
            self.done(fields, self.ask(fields, path).json())

    def job(self, fields):
        return self.ask(fields, status=202, headers=ASYNC).headers["Location"]

    def ended(self, path, state):
        wait_until(lambda: self.get(path).json()["state"] == state, f"{path} is {state}")
        self.jobs[state] += 1

    def run_failure(self):
        """A job that misses its deadline. It has to come first: once a speed is measured, the daemon would refuse it."""
        self.ended(self.job({**LONG, "deadline_s": 0.5}), "failed")
        self.rejected["deadline"] += 1

    def run_jobs(self):
        fields = {"steps": 3, "pruning": "at-edm-d"}
        path = self.job(fields)
        self.ended(path, "done")
        self.done(fields, self.get(path).json()["result"])
        path = self.job(LONG)
        self.expect(self.get(path, "DELETE"), 200)
        self.ended(path, "canceled")
        self.rejected["canceled"] += 1

    def run_refusals(self):
        self.ask({"steps": 0}, status=422)
        self.expect(self.get("/generate"), 405)
        self.expect(self.get("/nowhere"), 404)
        self.expect(self.d.request("GET", "/v1/models"), 401)
        self.ask({"steps": 150, "deadline_s": 0.0001}, status=504)
        self.rejected["deadline"] += 1
        self.done({}, self.ask({}, key="slow").json())
        self.ask({}, key="slow", status=429)
        self.rejected["rate"] += 1

    def run_full_queue(self):
        """One request runs, another one waits, and a third one is refused. Then the clients of the first two hang up."""
        sockets = [self.start(LONG)]
        self.has("active", 1)
        sockets.append(self.start(LONG))
        self.has("depth", 1)
        self.ask({}, status=503)
        self.rejected["full"] += 1
        for s, place in reversed(list(zip(sockets, ("active", "depth")))): # else the waiting one would start
            s.close()
            self.has(place, 0)
        self.d.gone(2)
        self.rejected["client_gone"] += 2

    def run_quota(self):
        path = self.ask(LONG, status=202, key="small", headers=ASYNC).headers["Location"]
        self.ask({}, status=429, key="small")
        self.rejected["quota"] += 1
        self.expect(self.get(path, "DELETE"), 200)
        self.ended(path, "canceled")
        self.rejected["canceled"] += 1

    def limit_files(self, size):
        hard = resource.prlimit(self.d.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.d.process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def run_full_disk(self):
        """A limit on the size of files acts like a full disk. The daemon refuses a new job, and tries again to store the end of
        another one."""
        fields = {"steps": 150, "width": 64, "height": 64}
        path = self.job(fields)
        self.limit_files(4096)
        self.ask({}, status=503, headers=ASYNC)
        self.rejected["storage"] += 1
        began = time.monotonic()
        wait_until(lambda: self.seen('atedm_store_errors_total{operation="end"} > 1'), "the end cannot be stored, twice")
        self.limit_files(resource.RLIM_INFINITY)
        self.full_disk_s = time.monotonic() - began
        self.ended(path, "done")
        self.done(fields, self.get(path).json()["result"])

    def run_restart(self):
        worker, = self.d.workers()
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: self.d.workers() not in ([], [worker]), "another worker")
        wait_until(lambda: self.d.get("/readyz").status == 200, "it is ready")
        self.done({}, self.ask({}).json())
        self.restarts += 1


def keys_and_entries():
    """Clients: one that may do everything, one with one request a minute, one with one request at a time."""
    keys = {name: make_key() for name in ("admin", "slow", "small")}
    return keys, [entry("admin", keys["admin"], admin=True),
                  entry("slow", keys["slow"], requests_per_minute=1, burst=1),
                  entry("small", keys["small"], max_queued=1)]

