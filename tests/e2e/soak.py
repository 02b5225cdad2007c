#!/usr/bin/env python3
"""The daemon under a steady load of everything, for long: memory, descriptors and latencies stay what they were, and every
accepted request comes to its end.

First the capacity is measured, by clients that each wait for their answer; then requests arrive at random, as often as keeps
the worker at 90 % of the processor time that it had at its capacity: on a shared machine the capacity is not the same for long.
A run counts in sixths. The first is the warm-up: memory grows until every size of request has been there in every company.
The daemon's memory in the last third is held against that in the second sixth. Workers are killed in the middle third, so the
last one's memory is held against what it had a sixth before. At this load a burst or two decide the p99 of ten minutes, and a
neighbour on a shared machine makes some: so the same requests come at the same times in the first and in the last third, and
p99 is held against p99 in each half minute; what counts is the median of their ratios.

usage: soak.py [SECONDS] [SEED]
"""
import http.client
import math
import os
import queue
import random
import signal
import statistics
import sys
import tempfile
import threading
import time

from daemon import PATIENCE, SMALL, Daemon, wait_until
from levels import cpu_seconds, is_sanitized, open_files, resident_bytes

LOAD = 0.9
CAPACITY_CLIENTS = 8
# Seconds from which on a run is long enough to be judged by its latencies and its memory.
LONG_S = 300
WORKER_KILL_S = 240
RELOAD_S = 5
PACE_S = 1
PACE_GAIN = 0.1  # of the rate, for each second and each unit that the load is off
MEMORY_GROWTH = 0.02
LATENCY_GROWTH = 0.10
WINDOW_S = 30
CLIENTS = 64

SIZES = ((32, 32), (48, 32), (64, 64))
PRUNINGS = ("off", "at-edm", "at-edm-a")
# What becomes of a request, and how often.
WAYS = {"wait": 50, "async": 15, "url": 10, "key": 5, "events": 8, "cancel": 4, "hang up": 8}


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def draw(rng):
    width, height = rng.choice(SIZES)
    return {**SMALL, "width": width, "height": height, "steps": rng.randint(4, 12), "seed": rng.randrange(1 << 20),
            "pruning": rng.choice(PRUNINGS)}


class Load:
    """Threads that each take what is due next; what is due and not taken yet waits, so that no arrival is held up."""

    def __init__(self, d, seed):
        self.d = d
        self.seed = seed
        self.due = queue.Queue()
        self.lock = threading.Lock()
        self.latencies = []  # (when it was due, seconds until its answer)
        self.counts = {way: 0 for way in WAYS}
        self.troubles = []
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def arrive(self, number, rng):
        way = rng.choices(list(WAYS), list(WAYS.values()))[0]
        self.due.put((time.monotonic(), number, way, draw(rng)))

    def work(self):
        while (item := self.due.get()) is not None:
            due, number, way, fields = item
            try:
                getattr(self, way.replace(" ", "_"))(due, number, fields)
            except (OSError, AssertionError, http.client.HTTPException, ValueError, KeyError) as error:
                with self.lock:
                    self.troubles.append(f"{way}: {error!r}")
            with self.lock:
                self.counts[way] += 1

    def post(self, fields, headers=None, status=200):
        answer = self.d.post("/generate", fields, headers=headers)
        assert answer.status == status, (answer.status, answer.body[:200])
        return answer

    def answered(self, due):
        with self.lock:
            self.latencies.append((due, time.monotonic() - due))

    # ---- the ways

    def wait(self, due, number, fields):
        self.post(fields)
        self.answered(due)

    def url(self, due, number, fields):
        self.post({**fields, "response_format": "url"})
        self.answered(due)

    def key(self, due, number, fields):
        headers = {"Idempotency-Key": f"key-{number}"}
        first = self.post(fields, headers).json()
        self.answered(due)
        assert self.post(fields, headers).json() == first, "another answer to the same key"

    def submit(self, fields):
        return self.post(fields, {"Prefer": "respond-async"}, 202).headers["Location"]

    def async_(self, due, number, fields):
        path = self.submit(fields)

        def is_done():
            state = self.d.get(path).json()["state"]
            assert state in ("queued", "running", "done"), state
            return state == "done"

        wait_until(is_done, path + " done")

    def events(self, due, number, fields):
        text = self.d.get(self.submit(fields) + "/events").body
        assert b"event: done" in text, text[-200:]

    def cancel(self, due, number, fields):
        path = self.submit(fields)
        answer = self.d.request("DELETE", path)
        assert answer.status == 204 or answer.json()["state"] == "canceled", answer.body

    def hang_up(self, due, number, fields):
        s = self.d.start(fields)
        time.sleep(random.Random(number).uniform(0, 0.2))
        s.close()

    def handled(self):
        with self.lock:
            return sum(self.counts.values())

    def end(self):
        """Waits for all that is open, as long as some of it ends: returns the seconds that it took."""
        start = time.monotonic()
        for _ in self.threads:
            self.due.put(None)
        handled, since = self.handled(), start
        while any(thread.is_alive() for thread in self.threads):
            time.sleep(0.1)
            if self.handled() > handled:
                handled, since = self.handled(), time.monotonic()
            assert time.monotonic() < since + PATIENCE, f"requests without an end; {handled} had one"
        return time.monotonic() - start


setattr(Load, "async", Load.async_)  # a word of Python's


def measure_capacity(d, seconds):
    """What clients get done which wait for each other (all ways cost about the same): requests a second, and the processor
    seconds a second that the worker takes for them."""
    ends, until = [], time.monotonic() + seconds
    half = until - seconds / 2  # the first half warms up

    def client(seed):
        rng = random.Random(seed)
        while time.monotonic() < until:
            assert d.post("/generate", draw(rng)).status == 200
            ends.append(time.monotonic())

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(CAPACITY_CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(half - time.monotonic())
    worker = d.workers()[0]
    spent, since = cpu_seconds(worker), time.monotonic()
    time.sleep(until - time.monotonic())
    busy = (cpu_seconds(worker) - spent) / (time.monotonic() - since)
    for thread in threads:
        thread.join()
    return sum(half < end <= until for end in ends) / (seconds / 2), busy


def measure_worker(d, measure):
    """Its number, and what `measure` makes of that; two times None where it was killed just now."""
    try:
        worker = d.workers()[0]
        return worker, measure(worker)
    except (OSError, IndexError, AssertionError):
        return None, None


class Pace:
    """How often requests arrive, so that the worker takes so many processor seconds a second."""

    def __init__(self, d, rate, busy):
        self.d, self.rate, self.wanted = d, rate, busy
        self.worker, self.spent, self.since = None, 0, 0

    def adapt(self):
        now = time.monotonic()
        worker, spent = measure_worker(self.d, cpu_seconds)
        if worker and worker == self.worker:
            busy = (spent - self.spent) / (now - self.since)
            self.rate *= math.exp(PACE_GAIN * PACE_S * (1 - busy / self.wanted))
        self.worker, self.spent, self.since = worker, spent, now


class Samples:
    """What the processes have, twice a second."""

    def __init__(self, d):
        self.d = d
        self.rows = []  # (when, daemon's memory, worker's memory or None, descriptors)

    def take(self):
        pid = self.d.process.pid
        _, worker = measure_worker(self.d, resident_bytes)
        self.rows.append((time.monotonic(), resident_bytes(pid), worker, len(open_files(pid))))

    def mean(self, column, start, end):
        values = [row[column] for row in self.rows if start <= row[0] < end and row[column]]
        return sum(values) / len(values) if values else math.nan


def drive(d, load, samples, pace, seconds):
    """Lets requests arrive, and faults; returns the times at which the sixths begin, and the end."""
    start = now = time.monotonic()
    arrival, sample, adapt, reload, kill = start, start, start, start + RELOAD_S, start + seconds / 3
    number, third = 0, start
    while now < start + seconds:
        if now >= third:
            times, kinds = random.Random(load.seed), random.Random(load.seed + 1)
            third += seconds / 3
        if now >= arrival:
            load.arrive(number, kinds)
            number += 1
            arrival += times.expovariate(pace.rate)
        if now >= sample:
            samples.take()
            sample += 0.5
        if now >= adapt:
            pace.adapt()
            adapt += PACE_S
        if now >= reload:
            d.process.send_signal(signal.SIGHUP)
            reload += RELOAD_S
        if now >= kill:
            os.kill(d.workers()[0], signal.SIGKILL)
            kill += WORKER_KILL_S if kill + WORKER_KILL_S < start + seconds * 2 / 3 else math.inf
        time.sleep(max(0, min(arrival, sample, adapt, reload, kill) - time.monotonic()))
        now = time.monotonic()
    return [start + seconds * sixth / 6 for sixth in range(7)], number


def check_rest(d, files):
    """Nothing is left of what was accepted; each request has seen its own end."""
    wait_until(lambda: d.gauge("atedm_active_requests") == d.gauge("atedm_queue_depth") == 0, "idle")
    for state in ("queued", "running"):
        assert not d.get(f"/jobs?state={state}&limit=1000").json()["jobs"], f"{state} jobs without anybody's request"
    wait_until(lambda: len(open_files(d.process.pid)) == files,
               f"{files} descriptors, not {len(open_files(d.process.pid))}")


def windows(latencies, start, seconds):
    """p99 of each window of that time."""
    count = max(1, round(seconds / WINDOW_S))
    at = [start + seconds * i / count for i in range(count + 1)]
    return [percentile([s for due, s in latencies if a <= due < b], 0.99) for a, b in zip(at, at[1:])]


def judge(name, before, after, most, judged):
    growth = after / before - 1
    good = growth <= most
    verdict = "" if not judged else ": good" if good else ": BAD"
    print(f"{name}: {before:.6g} then {after:.6g}, {100 * growth:+.1f} % (at most {100 * most:+.0f} %){verdict}")
    return good or not judged


def run(seconds, seed):
    with tempfile.TemporaryDirectory(prefix="atedmd-soak-") as folder:
        d = Daemon(job_store=os.path.join(folder, "jobs.db"), queue_limit=100000, max_connections=4096,
                   job_retention_bytes=4 << 20, log_level="error")
        with d:
            judged = seconds >= LONG_S and not is_sanitized(d.process.pid)
            capacity, busy = measure_capacity(d, max(5, min(60, seconds / 10)))
            time.sleep(1)
            files = len(open_files(d.process.pid))
            load, samples = Load(d, seed), Samples(d)
            sixths, sent = drive(d, load, samples, Pace(d, LOAD * capacity, LOAD * busy), seconds)
            behind = load.end()
            check_rest(d, files)
            print(f"{seconds:.0f} s, {sent} requests, {sent / seconds:.1f} a second; the capacity was {capacity:.1f} with "
                  f"{busy:.2f} processors: {load.counts}")
            print(f"the last answer came {behind:.1f} s after the last request was due")
            print(f"{files} descriptors, and {files} again; the store has {os.path.getsize(folder + '/jobs.db')} bytes")
            good = True
            good &= judge("daemon's resident bytes", samples.mean(1, sixths[1], sixths[2]),
                          samples.mean(1, sixths[4], sixths[6]), MEMORY_GROWTH, judged)
            good &= judge("worker's resident bytes", samples.mean(2, sixths[4], sixths[5]),
                          samples.mean(2, sixths[5], sixths[6]), MEMORY_GROWTH, judged)
            first, last = (windows(load.latencies, sixths[i], seconds / 3) for i in (0, 4))
            print("p99 of the latency in each half minute, s, first and last third:",
                  ", ".join(f"{a:.2f} {b:.2f}" for a, b in zip(first, last)))
            good &= judge("median of the ratios of p99", 1, statistics.median(b / a for a, b in zip(first, last)),
                          LATENCY_GROWTH, judged)
            assert sum(load.counts.values()) == sent, "a request got lost"
            assert not load.troubles, f"{len(load.troubles)} troubles, the first: {load.troubles[:3]}"
            assert good, "see above"


if __name__ == "__main__":
    run(float(sys.argv[1]) if len(sys.argv) > 1 else 1800, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
