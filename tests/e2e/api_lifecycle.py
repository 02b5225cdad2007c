#!/usr/bin/env python3
"""The daemon from start to end: what stops it from starting, signals, the queue's limit and order,
deadlines."""
import fcntl
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

from daemon import LONG, MODEL, PATIENCE, PROGRAM, SMALL, Daemon, read_response, wait_until


def run(*flags, **environment):
    with tempfile.TemporaryDirectory(prefix="atedmd-") as home:
        result = subprocess.run([PROGRAM, *flags], capture_output=True, text=True, timeout=PATIENCE, check=False,
                                env={"PATH": os.environ["PATH"], "HOME": home, **environment})
    return result.returncode, result.stdout, result.stderr


def is_listened_on(path):
    """The file of a Unix socket is there before anybody listens on it."""
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(path) == 0


def copy_truncated(folder, part):
    """The model, copied there, its weights of this part cut off: their path."""
    subprocess.run(["cp", "-r", MODEL + "/.", folder], check=True)
    weights, = pathlib.Path(folder, part).glob("*.safetensors")
    os.truncate(weights, 1000)
    return weights


class Start(unittest.TestCase):
    def check_refused(self, status, message, *flags, **environment):
        got, _, errors = run("--listen", "127.0.0.1:0", *flags, **environment)
        self.assertEqual(got, status, errors)
        self.assertIn(message, errors)

    def test_the_job_store(self):
        self.check_refused(1, "nowhere to keep jobs", "--model", MODEL, HOME="")
        self.check_refused(1, "the job store's folder /proc/nowhere", "--model", MODEL, STATE_DIRECTORY="/proc/nowhere")
        self.check_refused(1, "/nowhere/jobs.db", "--model", MODEL, "--job-store", "/nowhere/jobs.db")
        with tempfile.TemporaryDirectory(prefix="atedmd-") as folder:
            for variable, below in (("STATE_DIRECTORY", "jobs.db"), ("XDG_STATE_HOME", "atedmd/jobs.db"),
                                    ("HOME", ".local/state/atedmd/jobs.db")):
                path = pathlib.Path(folder, variable, below)
                process = subprocess.Popen([PROGRAM, "--model", MODEL, "--listen", "127.0.0.1:0"],
                                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                           env={"PATH": os.environ["PATH"], variable: os.path.join(folder, variable)})
                with process:
                    process.stdout.readline()
                    self.assertEqual(path.stat().st_mode & 0o777, 0o600)  # prompts are in it
                    process.terminate()

    def test_help_and_version(self):
        status, text, _ = run("--help")
        self.assertEqual(status, 0)
        self.assertIn("--queue-limit N", text)
        status, text, _ = run("--version")
        self.assertEqual((status, text.split()[0]), (0, "atedmd"))

    def test_help_and_version_of_the_worker(self):
        worker = pathlib.Path(PROGRAM).with_name("atedm-worker")
        for arguments, begin in ((["--help"], "usage: atedm-worker "), (["--version"], "atedm-worker "),
                                 (["--fd", "3", "--model", MODEL, "--help"], "usage: atedm-worker ")):
            result = subprocess.run([worker, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertTrue(result.stdout.startswith(begin), result.stdout)
        described = set(re.findall(r"^  (--[a-z-]+)", subprocess.run([worker, "--help"], capture_output=True, text=True,
                                                                      timeout=PATIENCE, check=True).stdout, re.MULTILINE))
        with Daemon() as d:
            pid, = d.workers()
            given = set(re.findall(r"--[a-z-]+", pathlib.Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")))
        self.assertEqual(given, described - {"--help", "--version"})
        result = subprocess.run([worker, "--nonsense"], capture_output=True, text=True, timeout=PATIENCE, check=False)
        self.assertEqual((result.returncode, result.stdout), (2, ""))

    def test_names_of_threads(self):
        """So that top and a debugger say whose they are."""
        with Daemon() as d:
            self.assertEqual(d.generate().status, 200)
            names = {path.read_text(encoding="utf-8").strip() for pid in (d.process.pid, *d.workers())
                     for path in pathlib.Path(f"/proc/{pid}/task").glob("*/comm")}
        self.assertLessEqual({"atedmd", "atedm-store", "atedm-worker", "atedm-reader", "atedm-encoder"}, names)
        self.assertEqual([name for name in names if not name.startswith("atedm")], [])

    def test_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            status, _, errors = run("--model", MODEL, "--listen", f"127.0.0.1:{port}")
            self.assertEqual(status, 1)
            self.assertIn(f"127.0.0.1:{port}: Address already in use", errors)

    def test_wrong_options(self):
        self.check_refused(2, 'no option "--nonsense"', "--nonsense", "1")
        self.check_refused(2, "--queue-limit: 0 is not within", "--queue-limit", "0")
        self.check_refused(2, "ATEDM_MAX_AREA", ATEDM_MAX_AREA="x")
        self.check_refused(2, "not ADDRESS:PORT", "--model", MODEL, "--listen", "8080")
        self.check_refused(2, "default_pruning: ", "--model", MODEL, "--default-pruning", "at-edm-z")
        self.check_refused(2, "/pruning/ratio", "--model", MODEL, "--default-pruning", '{"ratio": 7}')
        self.check_refused(2, "floor", "--model", MODEL, "--default-pruning", '{"flops_budget": 0.001}')
        self.check_refused(2, "max_area", "--model", MODEL, "--max-area", "64")
        images = ("--model", MODEL, "--max-images", "256", "--max-area")  # 256 (4 x 3932160 + 2^20) = 2^32
        self.check_refused(2, "max_images: 256 pictures of max_area", *images, "3932161")
        self.check_refused(2, "default_pruning: ", *images, "3932160", "--default-pruning", "at-edm-z")

    def test_configuration_file(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write('{"queue_limi": 1}')
            file.flush()
            self.check_refused(2, 'no option "queue_limi"', "--config", file.name)
        self.check_refused(2, "/nonexistent", "--config", "/nonexistent")
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({"model": MODEL, "max_images": 2}, file)
            file.flush()
            with Daemon(model=MODEL, config=file.name) as d:
                model, = d.get("/v1/models").json()["models"]
                self.assertEqual(model["limits"]["max_images"], 2)

    def test_models_that_do_not_load(self):
        self.check_refused(1, "/nonexistent", "--model", "/nonexistent")
        with tempfile.TemporaryDirectory() as copy:
            weights = copy_truncated(copy, "unet")
            self.check_refused(1, weights.name, "--model", copy)

    def test_ipv6_and_names(self):
        for listen in ("[::1]:0", "localhost:0", ":0"):
            # Not the store of whoever runs this, which their own daemon may have.
            state = tempfile.TemporaryDirectory(prefix="atedmd-")
            self.addCleanup(state.cleanup)
            process = subprocess.Popen([PROGRAM, "--model", MODEL, "--listen", listen, "--job-store", state.name + "/jobs.db"],
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            line = process.stdout.readline()
            process.stdout.close()
            if not line and listen == "[::1]:0":
                process.wait(PATIENCE)
                continue  # no IPv6 here
            port = int(line.rsplit(":", 1)[1])
            host = "::1" if listen == "[::1]:0" else "localhost" if listen != ":0" else "127.0.0.1"
            with socket.create_connection((host, port), PATIENCE) as s:
                s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                self.assertEqual(read_response(s).status, 200)
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(PATIENCE), 0)

    def test_json_log(self):
        d = Daemon(log_format="json")
        with d:
            answer = d.generate({"prompt": "\x01\"\\"}, headers={"X": "y"})
            d.get("/\"quoted\\path")
            identifier = answer.headers["X-Request-Id"]
            d.stop()
            lines = [json.loads(line) for line in d.log().splitlines()]
        mine, = [line for line in lines if line.get("id") == identifier]
        self.assertEqual((mine["status"], mine["path"], mine["level"]), (200, "/generate", "info"))
        self.assertTrue(any(line.get("path") == "/\"quoted\\path" for line in lines))


    def test_without_standard_files(self):
        """Nothing else gets their numbers: not the socket that is listened on, which a worker would make one that waits."""
        for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
            with self.subTest(closed=closed), tempfile.TemporaryDirectory(prefix="atedmd-") as folder:
                path = folder + "/socket"
                command = [PROGRAM, "--model", MODEL, "--listen", "unix:" + path, "--job-store", folder + "/jobs.db"]
                process = subprocess.Popen(["sh", "-c", f'exec "$@" {closed}', "sh"] + command, stdin=subprocess.DEVNULL,
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                self.addCleanup(process.kill)
                wait_until(lambda path=path: is_listened_on(path), "listens")
                for _ in range(3):  # behind the start of the worker, too
                    with socket.socket(socket.AF_UNIX) as s:
                        s.settimeout(PATIENCE)
                        s.connect(path)
                        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                        self.assertEqual(read_response(s).status, 200)
                    time.sleep(0.3)
                for number in range(3):
                    self.assertNotIn("socket:", os.readlink(f"/proc/{process.pid}/fd/{number}"))
                process.terminate()
                self.assertEqual(process.wait(PATIENCE), 0)

    def test_a_log_that_nobody_reads(self):
        end, pipe = os.pipe()
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, resource.getpagesize())
        d = Daemon()
        d.errors.close()
        d.errors, d.log = open(pipe, "w", encoding="utf-8"), lambda: ""
        with d:
            for _ in range(200):
                self.assertEqual(d.get("/healthz").status, 200)
            os.set_blocking(end, False)
            read = os.read(end, 1 << 16)
            while b"were lost" not in read:
                d.get("/healthz")
                try:
                    read += os.read(end, 1 << 16)
                except BlockingIOError:
                    pass
            lines = read.decode().splitlines()
            self.assertTrue(all(re.match(r"[0-9T:.-]+Z (debug|info|warning) ", line) for line in lines), lines)
            lost, = [line for line in lines if "were lost" in line]
            self.assertGreater(int(re.search("lines=([0-9]+)$", lost).group(1)), 100)
            self.assertEqual(d.generate().status, 200)
            for _ in range(200):  # full again
                d.get("/healthz")
            self.assertEqual(d.stop(), 0)
        os.close(end)


class Stop(unittest.TestCase):
    def test_idle(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with Daemon() as d:
                idle = d.connect()
                self.assertEqual(d.stop(number), 0)
                idle.close()

    def test_while_the_model_is_loaded(self):
        with Daemon(wait=False) as d:
            self.assertEqual(d.stop(), 0)

    def test_finishes_what_runs_and_waits(self):
        with Daemon(max_active=1) as d:
            first = d.in_background({**LONG, "steps": 5, "seed": 1})
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            others = [d.in_background(SMALL) for _ in range(3)]
            wait_until(lambda: d.gauge("atedm_queue_depth") == 3, "three wait")
            kept = d.connection()
            self.assertEqual(d.get("/healthz", connection=kept).status, 200)
            d.process.send_signal(signal.SIGTERM)

            def refused():
                try:
                    d.connect().close()
                    return False
                except ConnectionError:  # refused, or reset: the socket was closed just then
                    return True

            wait_until(refused, "no new connections")
            # A connection that was open gets told, and the way to another server is free.
            ready = d.get("/readyz", connection=kept)
            self.assertEqual(ready.status, 503)
            self.assertGreaterEqual(int(ready.headers["Retry-After"]), 1)
            self.assertEqual(ready.headers["Connection"], "close")
            kept.close()
            for background in (first, *others):
                self.assertEqual(background.answer().status, 200)
            self.assertEqual(d.process.wait(PATIENCE), 0)

    def test_new_requests_while_draining(self):
        with Daemon() as d:
            with d.start():
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
                kept = d.connection()
                d.get("/healthz", connection=kept)
                d.process.send_signal(signal.SIGTERM)
                wait_until(lambda: "signal" in d.log(), "the signal is seen")
                answer = d.generate(connection=kept)
                self.assertEqual(answer.status, 503)
                self.assertEqual(answer.json()["type"], "urn:atedm:problem:draining")
                kept.close()
            # The only client has hung up: nothing is left to finish.
            self.assertEqual(d.process.wait(PATIENCE), 0)

    def test_second_signal(self):
        with Daemon() as d:
            with d.start():
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
                d.process.send_signal(signal.SIGTERM)
                wait_until(lambda: "signal" in d.log(), "the first signal is seen")
                started = time.monotonic()
                self.assertEqual(d.stop(), 1)
                self.assertLess(time.monotonic() - started, 5)

    def test_signals_to_the_very_end(self):
        for number, statuses in ((signal.SIGHUP, {0}), (signal.SIGTERM, {0, 1})):
            for _ in range(5):
                with Daemon() as d:
                    d.process.send_signal(signal.SIGTERM)
                    while d.process.poll() is None:
                        d.process.send_signal(number)
                    self.assertIn(d.process.returncode, statuses)

    def test_requests_while_loading_are_answered(self):
        with Daemon(wait=False) as d:
            self.assertEqual(d.generate().status, 200)


class Failure(unittest.TestCase):
    def test_a_model_that_fails_with_a_request_that_nobody_waits_for(self):
        with tempfile.TemporaryDirectory(prefix="atedmd-") as folder:
            model, program = pathlib.Path(folder, "model"), pathlib.Path(folder, "atedmd")
            model.mkdir()
            copy_truncated(model, "vae")
            shutil.copy(PROGRAM, program)
            worker, go = program.with_name("atedm-worker"), program.with_name("go")
            worker.write_text(f'#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.05; done\n'
                              f'exec {pathlib.Path(PROGRAM).with_name("atedm-worker")} "$@"\n', "ascii")
            worker.chmod(0o755)
            d = Daemon(wait=False, model=model, cancel_on_disconnect="false")
            d.command[0] = program
            with d:
                with d.start():
                    wait_until(lambda: d.gauge("atedm_queue_depth") == 1, "it waits")
                wait_until(lambda: "status=499" in d.log(), "the daemon knows that the client is gone")
                self.assertEqual(d.gauge("atedm_queue_depth"), 1)
                go.touch()
                self.assertEqual(d.process.wait(PATIENCE), 1)
                self.assertIn("the model cannot be used", d.log())

    @unittest.skipIf(re.search(b"__[at]san_init", pathlib.Path(PROGRAM).read_bytes()),
                     "sanitizers' allocators end the program where there is no memory")
    def test_no_memory(self):
        with Daemon(max_area=16384 * 16384, max_images=3) as d:
            worker, = d.workers()
            pages = int(pathlib.Path(f"/proc/{worker}/statm").read_text().split()[0])
            used = pages * resource.getpagesize()
            resource.prlimit(worker, resource.RLIMIT_AS, (used + (1 << 30),) * 2)
            answer = d.generate({"width": 16384, "height": 16384, "steps": 1})
            self.assertEqual(answer.status, 422)
            problem = answer.json()
            self.assertEqual(problem["type"], "urn:atedm:problem:no-memory")
            self.assertEqual(problem["id"], answer.headers["X-Request-Id"])
            line, = [line for line in d.log().splitlines()
                     if "request failed" in line and problem["id"] in line]
            self.assertIn("memory", line)
            self.assertEqual(d.generate().status, 200)
            self.assertEqual(d.workers(), [worker])
            self.assertEqual(d.gauge("atedm_active_requests"), 0)
            self.assertEqual(d.gauge("atedm_requests_total", route="/generate", code="422"), 1)


class Queue(unittest.TestCase):
    def test_full(self):
        with Daemon(queue_limit=2, max_active=1) as d:
            with d.start():
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
                waiting = [d.in_background(SMALL) for _ in range(2)]
                wait_until(lambda: d.gauge("atedm_queue_depth") == 2, "two wait")
                answer = d.generate()
                self.assertEqual(answer.status, 503)
                self.assertEqual(answer.json()["type"], "urn:atedm:problem:queue-full")
                self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
                self.assertEqual(d.gauge("atedm_queue_rejected_total", reason="full"), 1)
            for background in waiting:
                self.assertEqual(background.answer().status, 200)
            self.assertEqual(d.generate().status, 200)

    def test_order(self):
        with Daemon(max_active=1) as d:
            waiting = {}
            with d.start():
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
                for i, priority in enumerate((0, -5, 10, 0, 10)):
                    waiting[i] = d.in_background({**SMALL, "priority": priority, "steps": 10})
                    wait_until(lambda n=i: d.gauge("atedm_queue_depth") == n + 1, "it waits")
            for background in waiting.values():
                self.assertEqual(background.answer().status, 200)
            # By the server's own clock: how long each waited.
            started = {i: b.answer().json()["latency"] for i, b in waiting.items()}
            order = sorted(waiting, key=lambda i: waiting[i].ended)
            self.assertEqual(order, [2, 4, 0, 3, 1], started)


class Deadlines(unittest.TestCase):
    def check_late(self, answer):
        self.assertEqual(answer.status, 504)
        self.assertEqual(answer.json()["type"], "urn:atedm:problem:deadline")

    def test_while_it_runs(self):
        with Daemon() as d:
            started = time.monotonic()
            self.check_late(d.post("/generate", {**LONG, "deadline_s": 0.5}))
            self.assertLess(time.monotonic() - started, 5)
            # Its place is free behind the step that it was at.
            self.assertEqual(d.generate().status, 200)
            self.assertEqual(d.gauge("atedm_queue_rejected_total", reason="deadline"), 1)
            self.assertEqual(d.gauge("atedm_active_requests"), 0)

    def test_while_it_waits(self):
        with Daemon(max_active=1) as d, d.start():
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            late = d.in_background({**SMALL, "deadline_s": 0.3})
            patient = d.in_background({**SMALL, "deadline_s": 1000})
            self.check_late(late.answer())
            self.assertEqual(d.gauge("atedm_queue_depth"), 1)
            self.assertIsNone(patient.result)

    def test_what_cannot_be_done_is_refused_at_once(self):
        with Daemon() as d:
            self.assertEqual(d.generate().status, 200)  # a rate is measured
            answer = d.post("/generate", {**LONG, "deadline_s": 0.001})
            self.check_late(answer)
            self.assertEqual(d.gauge("atedm_active_requests"), 0, "it was never started")

    def test_in_time(self):
        with Daemon() as d:
            self.assertEqual(d.generate({"deadline_s": 60}).status, 200)


if __name__ == "__main__":
    unittest.main()
