#!/usr/bin/env python3
"""Kills the daemon and its workers at random moments under a load of jobs, and counts: every accepted job is done,
once, with the picture that its request makes undisturbed.

usage: chaos.py [KILLS] [SEED]
"""
import http.client
import os
import random
import signal
import sys
import tempfile
import time

from daemon import PATIENCE, SMALL, Daemon, images_of, wait_until

KINDS = [{**SMALL, "steps": 12, "width": size, "height": size, "pruning": pruning, "seed": seed}
         for size in (32, 48) for pruning in ("off", "at-edm-a") for seed in (1, 2)]
# Requests of one round, and seconds within which something is killed.
LOAD = 6
ROUND_S = 0.35


class Client:
    """Sends jobs, each until it is accepted, always with the same key."""

    def __init__(self, rng):
        self.rng = rng
        self.sent = 0
        self.accepted = {}  # key: (path, kind)
        self.done = {}      # path: the job as it was first told to be done

    def send(self, d, open_ended):
        key, kind = f"key-{self.sent}", self.rng.randrange(len(KINDS))
        self.sent += 1
        open_ended.append((key, kind))
        self.retry(d, open_ended)

    def retry(self, d, open_ended):
        """Whatever got no answer is sent again: it may have been accepted, or not."""
        for key, kind in list(open_ended):
            answer = d.generate(KINDS[kind], headers={"Prefer": "respond-async", "Idempotency-Key": key})
            assert answer.status == 202, answer.body
            path = answer.headers["Location"]
            assert self.accepted.setdefault(key, (path, kind)) == (path, kind), "two jobs of one key"
            open_ended.remove((key, kind))

    def look(self, d):
        """What has been told to be done stays as it was told."""
        for path, _ in self.accepted.values():
            job = d.get(path).json()
            assert job["state"] in ("queued", "running", "done"), job
            if path in self.done:
                assert job == self.done[path], f"{job} was {self.done[path]}"
            elif job["state"] == "done":
                self.done[path] = job

    def all_done(self, d):
        self.look(d)
        return len(self.done) == len(self.accepted)


def attempt(call):
    """False where the daemon was killed under it."""
    try:
        call()
        return True
    except (OSError, http.client.HTTPException):
        return False


def kill_later(d, rng, worker):
    """Kills the daemon or its worker within a round, from a process of its own so that nothing waits for it."""
    pids = d.workers() if worker else [d.process.pid]
    child = os.fork()
    if child == 0:
        time.sleep(rng.uniform(0, ROUND_S))
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        os._exit(0)
    return child


def run(kills, seed):
    rng = random.Random(seed)
    client, unanswered = Client(rng), []
    with tempfile.TemporaryDirectory(prefix="atedmd-chaos-") as folder:
        options = {"job_store": os.path.join(folder, "jobs.db"), "queue_limit": 100000, "max_active": 4,
                   "log_level": "warning"}
        with Daemon(**options) as d:
            expected = [images_of(d.generate(kind))[0] for kind in KINDS]
        d = Daemon(**options).__enter__()
        for number in range(kills):
            # A request that loses two workers is given up, by design: so before a second worker goes,
            # all that the first one had has to be done.
            # Nor may one lose three daemons.
            worker = rng.random() < 0.5 and number % 5 == 0
            if worker or number % 2 == 0:
                wait_until(lambda: client.all_done(d), "all done")
            child = kill_later(d, rng, worker)
            alive = True
            for _ in range(LOAD):
                alive = alive and attempt(lambda: client.send(d, unanswered))
                time.sleep(rng.uniform(0, ROUND_S / LOAD))
            os.waitpid(child, 0)
            if not worker:
                d.process.wait(PATIENCE)
                d.__exit__(None, None, None)
                d = Daemon(**options).__enter__()
            client.retry(d, unanswered)
            client.look(d)
            if worker:
                wait_until(lambda: client.all_done(d), "all done")
        wait_until(lambda: client.all_done(d), "all done")
        listed, page = [], {"next": None}
        while page["next"] or not listed:
            before = f"&before={page['next']}" if page["next"] else ""
            page = d.get("/jobs?limit=1000" + before).json()
            listed += [job["id"] for job in page["jobs"]]
        paths = {path for path, _ in client.accepted.values()}
        assert len(listed) == client.sent and {"/jobs/" + job for job in listed} == paths, "lost or twice"
        for path, kind in client.accepted.values():
            assert d.get(path + "/images/0").body == expected[kind], f"{path} is another picture"
        wait_until(lambda: d.gauge("atedm_active_requests") == d.gauge("atedm_queue_depth") == 0, "idle")
        assert d.stop() == 0
        d.__exit__(None, None, None)
    print(f"{kills} kills, {client.sent} jobs, each done once")


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 20, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
