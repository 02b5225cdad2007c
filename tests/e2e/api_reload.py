#!/usr/bin/env python3
"""SIGHUP: every option that a running daemon takes over, one that needs a restart, and configurations that are wrong,
which change nothing. And the end of patience after SIGTERM, drain_timeout_s."""
import json
import os
import signal
import subprocess
import time
import unittest

from daemon import LONG, PATIENCE, SMALL, Daemon, wait_until
from key_file import JsonFile, KeyFile, bearer, entry, make_key, reload


class ReloadTest(unittest.TestCase):
    def daemon(self, initial=None, **flags):
        """A daemon whose options are in a file: self.set() changes them."""
        self.file = JsonFile(self, initial or {})
        return Daemon(config=self.file, log_level=None, default_pruning=None, **flags)

    def set(self, d, outcome="reloaded", **options):
        self.file.write(options)
        return reload(d, outcome)


class Live(ReloadTest):
    def test_nothing_changed(self):
        with self.daemon() as d:
            lines = reload(d)
            self.assertRegex(lines, r"info reloading\n.* info reloaded\n")
            self.assertNotIn("restart", lines)

    def test_queue_limit(self):
        with self.daemon({"queue_limit": 1}, max_active=1) as d, d.start():
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            sockets = [d.start()]
            wait_until(lambda: d.gauge("atedm_queue_depth") == 1, "one waits")
            self.assertEqual(d.generate().status, 503)
            self.assertIn('queue_limit="1 -> 2"', self.set(d, queue_limit=2))
            sockets.append(d.start())
            wait_until(lambda: d.gauge("atedm_queue_depth") == 2, "two wait")
            # A limit that is lower than what waits takes nothing away.
            self.assertIn('queue_limit="2 -> 1"', self.set(d, queue_limit=1))
            self.assertEqual(d.gauge("atedm_queue_depth"), 2)
            sockets.pop().close()
            wait_until(lambda: d.gauge("atedm_queue_depth") == 1, "one is gone")
            self.assertEqual(d.generate().status, 503)
            sockets.pop().close()

    def test_limits_of_requests(self):
        with self.daemon() as d:
            big = {"width": 512, "height": 512, "steps": 1}
            for name, value, fields in (("max_area", 128 * 128, big), ("max_images", 1, {"num_images": 2}),
                                        ("max_steps", 3, {"steps": 4})):
                def estimate():
                    return d.post("/v1/estimate", {**SMALL, **fields})
                self.assertEqual(estimate().status, 200)
                before = d.get("/v1/models").json()["models"][0]["limits"][name]
                self.assertIn(f'{name}="{before} -> {value}"', self.set(d, **{name: value}))
                self.assertEqual(estimate().status, 422, name)
                self.assertEqual(d.get("/v1/models").json()["models"][0]["limits"][name], value)
                # An option that is not in the file any more has its default again.
                self.assertIn(f'{name}="{value} -> {before}"', self.set(d))
                self.assertEqual(estimate().status, 200)

    def test_what_is_sent_again_came_before(self):
        body, key = {"steps": 4, "num_images": 2, "pruning": "auto"}, {"Idempotency-Key": "k"}
        before = {"latency_objective_s": 60}
        with self.daemon(before) as d:
            first = d.generate(body, headers=key).json()
            for options in ({**before, "max_steps": 3}, {**before, "max_images": 1}, {}):
                self.set(d, **options)
                self.assertEqual(d.generate(body).status, 422, options)
                again = d.generate(body, headers=key)
                self.assertEqual((again.status, again.json()), (200, first), options)
                held = d.generate(body, headers={**key, "Prefer": "respond-async"})
                self.assertEqual((held.status, held.json()["id"]), (202, first["id"]))
                for fields, headers in ((body, {"Idempotency-Key": "l"}), ({**body, "seed": 8}, key),
                                        (body, {**key, "Accept": "image/png"})):  # of two pictures
                    self.assertEqual(d.generate(fields, headers=headers).status, 422, options)
            self.assertEqual(d.post("/generate", b"[]", headers=key).status, 422)

    def test_what_is_sent_again_while_it_runs(self):
        again = {"Idempotency-Key": "k", "Prefer": "respond-async"}
        with self.daemon() as d:
            first = d.generate(LONG, headers=again)
            self.assertEqual(first.status, 202)
            self.set(d, max_steps=3)
            second = d.generate(LONG, headers=again)
            self.assertEqual((second.status, second.json()["id"]), (202, first.json()["id"]))
            self.assertEqual(d.request("DELETE", first.headers["Location"]).status, 200)

    def test_what_is_sent_again_with_less_priority_allowed(self):
        alice = make_key()
        keys = KeyFile(self, entry("alice", alice))
        body, once = {"priority": 5}, {**bearer(alice), "Idempotency-Key": "k"}
        with self.daemon({"api_keys": str(keys)}) as d:
            first = d.generate(body, headers=once)
            keys.set(entry("alice", alice, max_priority=4))
            reload(d)
            self.assertEqual(d.generate(body, headers=bearer(alice)).status, 403)
            again = d.generate(body, headers=once)
            self.assertEqual((again.status, again.json()), (200, first.json()))

    def test_default_pruning(self):
        with self.daemon({"default_pruning": "off"}) as d:
            self.assertEqual(d.generate().json()["flops"]["saved_ratio"], 0)
            self.set(d, default_pruning={"preset": "at-edm-a"})
            self.assertEqual(d.get("/v1/schedules").json()["default"]["preset"], "at-edm-a")
            self.assertEqual(d.generate().json()["pruning"]["preset"], "at-edm-a")
            self.assertIn("-> off", self.set(d, default_pruning="off"))
            self.assertEqual(d.generate().json()["flops"]["saved_ratio"], 0)

    def test_log(self):
        with self.daemon() as d:
            # The line about it is there under the more talkative of the levels.
            self.assertIn('log_level="info -> error"', self.set(d, log_level="error"))
            quiet = len(d.log())
            d.generate()
            self.assertEqual(d.log()[quiet:], "")
            line = self.set(d, log_format="json").splitlines()[-2]
            fields = json.loads(line)
            self.assertEqual((fields["message"], fields["log_level"], fields["log_format"]),
                             ("reloaded", "error -> info", "text -> json"))
            before = len(d.log())
            d.generate()
            self.assertEqual(json.loads(d.log()[before:].splitlines()[-1])["path"], "/generate")

    def test_worker_timeout(self):
        with self.daemon() as d:
            first, = d.workers()
            self.assertIn('worker_timeout_s="600 -> 1"', self.set(d, worker_timeout_s=1))
            os.kill(first, signal.SIGSTOP)
            self.assertEqual(d.generate().status, 200, "by another worker")
            self.assertNotIn(first, d.workers())

    def test_cancel_on_disconnect(self):
        with self.daemon() as d:
            self.assertIn('cancel_on_disconnect="true -> false"', self.set(d, cancel_on_disconnect=False))
            d.start({**SMALL, "steps": 100, "pruning": "off"}).close()
            wait_until(lambda: d.gauge("atedm_images_total", sampler="euler", pruning="off") == 1, "it goes on")

    def test_keys_on_and_off(self):
        alice = make_key()
        keys = KeyFile(self, entry("alice", alice))
        with self.daemon() as d:
            self.assertEqual(d.generate().status, 200)
            waiting = d.in_background({**LONG, "steps": 10, "num_images": 1})
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            lines = self.set(d, api_keys=str(keys))
            self.assertIn(f'api_keys=" -> {keys}"', lines)
            self.assertIn('keys="added alice; now asked for"', lines)
            self.assertEqual(d.generate().status, 401)
            self.assertEqual(d.generate(headers=bearer(alice)).status, 200)
            self.assertEqual(waiting.answer().status, 200, "was let in before")
            self.assertIn("no more asked for", self.set(d))
            self.assertEqual(d.generate().status, 200)

    def test_flags_win_as_at_the_start(self):
        with self.daemon(max_steps=7) as d:
            self.assertNotIn("max_steps", self.set(d, max_steps=5))
            self.assertEqual(d.get("/v1/models").json()["models"][0]["limits"]["max_steps"], 7)

    def test_while_it_starts(self):
        """A signal that comes before the daemon listens is a reload all the same. (The dynamic linker's time is the system's: the
        signal is held for it here.)"""
        d = Daemon()
        self.addCleanup(d.state.cleanup)
        self.addCleanup(d.errors.close)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        process = subprocess.Popen(d.command, stdout=subprocess.PIPE, stderr=d.errors, text=True)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with process:
            process.send_signal(signal.SIGHUP)
            self.assertIn("listening", process.stdout.readline())
            try:
                wait_until(lambda: "info reloaded" in d.log(), "reloaded")
            finally:
                process.terminate()
            self.assertEqual(process.wait(PATIENCE), 0)

    def test_workers_take_no_notice(self):
        # A terminal that is closed sends the signal to all of the group.
        with self.daemon() as d:
            worker, = d.workers()
            os.kill(worker, signal.SIGHUP)
            reload(d)
            self.assertEqual(d.generate().status, 200)
            self.assertEqual(d.workers(), [worker])

    def test_many_signals_while_it_works(self):
        with self.daemon() as d:
            waiting = [d.in_background({**SMALL, "seed": seed}) for seed in range(8)]
            for i in range(50):
                self.file.write({"max_steps": 100 + i})
                d.process.send_signal(signal.SIGHUP)
                time.sleep(0.002 * (i % 3))
            for background in waiting:
                self.assertEqual(background.answer().status, 200)
            wait_until(lambda: d.get("/v1/models").json()["models"][0]["limits"]["max_steps"] == 149,
                       "the last one holds")


class Refused(ReloadTest):
    def test_what_needs_a_restart(self):
        with self.daemon() as d:
            for _ in range(2):  # it is said each time
                lines = self.set(d, workers=2, max_body_bytes=2048, queue_limit=3)
                self.assertRegex(lines, r'warning needs a restart workers="1 -> 2" max_body_bytes="1048576 -> 2048"\n')
            self.assertEqual(len(d.workers()), 1)
            self.assertEqual(d.post("/generate", b" " * 4096).status, 400)

    def test_wrong_configurations_change_nothing(self):
        keys = KeyFile(self)
        keys.write("{")
        with self.daemon() as d:
            native = d.get("/v1/models").json()["models"][0]["native_width"]
            for options, part in (({"max_stepz": 4}, "max_stepz"), ({"queue_limit": 0}, "queue_limit"),
                                  ({"default_pruning": "at-edm-z"}, "default_pruning: "),
                                  ({"default_pruning": {"flops_budget": 0.001}}, "floor"),
                                  ({"max_area": native * native - 1}, "max_area: "),
                                  ({"max_area": 134217728, "max_images": 8}, "max_images: 8 pictures of max_area, 134217728"),
                                  ({"api_keys": str(keys)}, "api_keys: "),
                                  ({"api_keys": "/nonexistent"}, "/nonexistent"),
                                  ({"workers": 0}, "workers")):
                lines = self.set(d, "not reloaded", log_format="json", max_steps=3, **options)
                self.assertRegex(lines, "error not reloaded: everything stays as it was error=")
                self.assertIn(part, lines)
                self.assertEqual(d.generate({"steps": 4}).status, 200)
            self.file.write("{")
            reload(d, "not reloaded")
            self.file.path.unlink()
            reload(d, "not reloaded")
            self.assertIn('max_steps="150 -> 3"', self.set(d, max_steps=3))
            self.assertEqual(d.generate({"steps": 4}).status, 422)


class Drain(ReloadTest):
    def check_cut_off(self, background):
        answer = background.answer()
        self.assertEqual((answer.status, answer.json()["type"]), (503, "urn:atedm:problem:draining"))
        self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)

    def busy(self, d):
        """One that runs and two that wait."""
        waiting = [d.in_background(LONG)]
        wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
        waiting += [d.in_background(SMALL) for _ in range(2)]
        wait_until(lambda: d.gauge("atedm_queue_depth") == 2, "two wait")
        return waiting

    def test_limit(self):
        with Daemon(max_active=1, drain_timeout_s=1) as d:
            waiting = self.busy(d)
            kept = d.connection()
            d.get("/healthz", connection=kept)
            started = time.monotonic()
            d.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "signal" in d.log(), "the signal is seen")
            self.assertEqual(d.get("/readyz", connection=kept).status, 503)
            kept.close()
            for background in waiting:
                self.check_cut_off(background)
                self.assertGreater(background.ended - started, 0.9)
            self.assertEqual(d.process.wait(PATIENCE), 0)
            self.assertLess(time.monotonic() - started, 15)
            self.assertRegex(d.log(), r"warning drain_timeout_s is over: requests are cut off requests=3\n")

    def test_at_once(self):
        with Daemon(drain_timeout_s=0) as d:
            waiting = d.in_background(LONG)
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            d.process.send_signal(signal.SIGTERM)
            self.check_cut_off(waiting)
            self.assertEqual(d.process.wait(PATIENCE), 0)

    def test_who_is_done_in_time_is_not_cut_off(self):
        with Daemon(max_active=1, drain_timeout_s=PATIENCE) as d:
            waiting = d.in_background({**LONG, "steps": 5, "num_images": 1})
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            d.process.send_signal(signal.SIGTERM)
            self.assertEqual(waiting.answer().status, 200)
            self.assertEqual(d.process.wait(PATIENCE), 0)
            self.assertNotIn("cut off", d.log())

    def test_reload_while_it_drains(self):
        with self.daemon(max_active=1) as d:
            waiting = self.busy(d)
            d.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "signal" in d.log(), "the signal is seen")
            self.file.write({"drain_timeout_s": 0.5})
            d.process.send_signal(signal.SIGHUP)
            for background in waiting:
                self.check_cut_off(background)
            self.assertEqual(d.process.wait(PATIENCE), 0)
            self.assertIn('drain_timeout_s="300 -> 0.5"', d.log())

    def test_a_reader_that_does_not_read(self):
        with Daemon(drain_timeout_s=0) as d, d.start():
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            self.assertEqual(d.stop(), 0)


if __name__ == "__main__":
    unittest.main()
