#!/usr/bin/env python3
"""The daemon under a service manager, played by this test: what it says over NOTIFY_SOCKET, and when it feeds the
watchdog. deploy/systemd/try.sh has the same with systemd itself."""
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

import daemon
from daemon import LONG, PATIENCE, Daemon, wait_until

WATCHDOG_S = 0.6


class Manager:
    """The other end of NOTIFY_SOCKET: `said` is a list of (when, {name: value}), one for each message."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.heard = []

    def close(self):
        self.socket.close()

    @property
    def said(self):
        while True:
            try:
                text = self.socket.recv(4096).decode()
            except BlockingIOError:
                return self.heard
            words = dict(line.split("=", 1) for line in text.splitlines())
            self.heard.append((time.monotonic(), words))

    def count(self, word, value="1"):
        return sum(words.get(word) == value for _, words in self.said)

    def fill(self):
        """Until not one more message has room."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            while True:
                try:
                    other.sendto(b"STATUS=filled", self.path)
                except BlockingIOError:
                    return

    def wait(self, word, value="1", more=1):
        """Waits for so many more messages with this word than there were."""
        before = self.count(word, value)
        wait_until(lambda: self.count(word, value) >= before + more, f"{word}={value}")

    def wait_status(self, pattern):
        wait_until(lambda: self.said and re.search(pattern, self.said[-1][1]["STATUS"]), pattern)

    def is_fed(self):
        """Whether the watchdog gets its word within twice the time that it asks for."""
        before = self.count("WATCHDOG")
        time.sleep(2 * WATCHDOG_S)
        return self.count("WATCHDOG") > before


class Service(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="atedmd-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.manager = Manager(folder.name)
        self.addCleanup(self.manager.close)

    def start(self, **options):
        environment = {"NOTIFY_SOCKET": self.manager.path, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        return Daemon(environment=environment, **options)

    def workers_begin_with(self, command):
        """With a command of the shell, before the program itself."""
        program = pathlib.Path(daemon.PROGRAM)
        shutil.copy(program, self.folder)
        script = pathlib.Path(self.folder, "atedm-worker")
        script.write_text(f'#!/bin/sh\n{command}\nexec {program.parent}/atedm-worker "$@"\n', "ascii")
        script.chmod(0o755)
        self.addCleanup(setattr, daemon, "PROGRAM", daemon.PROGRAM)
        daemon.PROGRAM = os.path.join(self.folder, program.name)

    def test_a_life(self):
        with self.start() as d:
            self.manager.wait_status("^1 of 1 workers up, 0 requests running, 0 waiting$")
            self.assertTrue(self.manager.is_fed())  # though it has nothing to do
            d.process.send_signal(signal.SIGHUP)
            wait_until(lambda: self.manager.count("READY") == 2, "reloaded")
            self.assertEqual(d.generate().status, 200)
            socket_of_long = d.start(LONG)
            self.manager.wait_status("1 requests running, 0 waiting$")
            self.assertTrue(self.manager.is_fed())
            socket_of_long.close()
            self.assertEqual(d.stop(), 0)
        said = self.manager.said
        order = [word for _, words in said for word in words if word in ("READY", "RELOADING", "STOPPING")]
        self.assertEqual(order, ["READY", "RELOADING", "READY", "STOPPING"])
        for when, words in said:
            self.assertTrue(words["STATUS"])
            if "RELOADING" in words:
                self.assertLess(abs(int(words["MONOTONIC_USEC"]) / 1e6 - when), PATIENCE)
        stopping = next(i for i, (_, words) in enumerate(said) if "STOPPING" in words)
        self.assertFalse(any("EXTEND_TIMEOUT_USEC" in words for _, words in said[:stopping]))
        self.assertTrue(all("EXTEND_TIMEOUT_USEC" in words for _, words in said[stopping:]))

    def test_ready_is_not_said_too_early(self):
        self.workers_begin_with("kill -STOP $$")
        with self.start(wait=False) as d:
            worker, = wait_until(d.workers, "a worker")
            wait_until(lambda: "State:\tT" in pathlib.Path(f"/proc/{worker}/status").read_text("ascii"), "the worker stands")
            self.assertEqual(d.get("/readyz").status, 503)
            self.manager.wait_status("^Loads the model ")
            d.process.send_signal(signal.SIGHUP)
            wait_until(lambda: "reloaded" in d.log(), "reloaded")
            self.assertTrue(self.manager.is_fed())
            self.assertEqual(self.manager.count("READY") + self.manager.count("RELOADING"), 0)
            os.kill(worker, signal.SIGCONT)
            wait_until(lambda: self.manager.count("READY") == 1, "ready")
            self.assertEqual(d.get("/readyz").status, 200)

    def test_a_drain(self):
        with self.start(drain_timeout_s=PATIENCE) as d:
            unread = d.start(LONG)
            self.manager.wait_status("1 requests running")
            d.process.send_signal(signal.SIGTERM)
            self.manager.wait("EXTEND_TIMEOUT_USEC", "30000000", more=4)
            self.manager.wait_status(r"^Finishes 1 running and 0 waiting requests, for \d+ s at most$")
            self.assertTrue(self.manager.is_fed())
            d.process.send_signal(signal.SIGHUP)  # is done, but it stays one that stops
            wait_until(lambda: "reloaded" in d.log(), "reloaded")
            self.assertEqual(self.manager.count("RELOADING"), 0)
            self.assertEqual((self.manager.count("READY"), self.manager.count("STOPPING")), (1, 1))
            unread.close()  # gives the request up
            self.assertEqual(d.process.wait(PATIENCE), 0)

    def test_a_worker_that_is_started_again_is_no_second_start(self):
        with self.start() as d:
            worker, = d.workers()
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: d.get("/readyz").status == 200 and d.workers() not in ([], [worker]), "another worker")
            self.assertTrue(self.manager.is_fed())
            self.assertEqual(self.manager.count("READY"), 1)

    def test_a_worker_that_cannot_be_ended(self):
        """A process that holds the worker's pipe, too: its end is not seen, whatever is done to it."""
        holder = pathlib.Path(self.folder, "holder")
        self.workers_begin_with(f"[ -e {holder} ] || {{ sleep 1000 & echo $! > {holder}; }}")
        with self.start(worker_timeout_s=0.5) as d:
            self.addCleanup(lambda: os.kill(int(holder.read_text()), signal.SIGKILL))
            worker = next(pid for pid in d.workers() if str(pid) != holder.read_text().strip())
            unread = d.start(LONG)
            self.manager.wait_status("1 requests running")
            os.kill(worker, signal.SIGSTOP)
            self.manager.wait_status("^A worker has said nothing for 1[0-9] s though it has to$")
            self.assertFalse(self.manager.is_fed())
            self.assertEqual(d.get("/healthz").status, 200)  # the loop turns
            os.kill(int(holder.read_text()), signal.SIGKILL)  # now it is seen, and another is started
            self.manager.wait("WATCHDOG")
            wait_until(lambda: not self.manager.said[-1][1]["STATUS"].startswith("A worker"), "well again")
            unread.close()

    def test_a_daemon_that_stands_still(self):
        with self.start() as d:
            d.process.send_signal(signal.SIGSTOP)
            time.sleep(WATCHDOG_S)
            self.assertFalse(self.manager.is_fed())
            d.process.send_signal(signal.SIGCONT)
            self.assertTrue(self.manager.is_fed())

    def test_no_descriptors_left(self):
        with self.start() as d:
            used = len(os.listdir(f"/proc/{d.process.pid}/fd"))
            resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (used + 4, used + 4))
            connections = [d.connect() for _ in range(20)]
            wait_until(lambda: "have to wait to be accepted" in d.log(), "starved")
            self.assertTrue(self.manager.is_fed())
            self.assertTrue(self.manager.is_fed())
            for connection in connections:
                connection.close()

    def test_a_manager_that_does_not_read(self):
        """Its queue runs full: nothing waits for it, and what counts is said when it reads again."""
        self.manager.fill()
        began = time.monotonic()
        with self.start() as d:
            d.process.send_signal(signal.SIGHUP)
            wait_until(lambda: "reloaded" in d.log(), "reloaded")
            self.assertLess(time.monotonic() - began, PATIENCE / 2)
            self.assertEqual(self.manager.count("READY"), 0)  # now it has read
            wait_until(lambda: self.manager.count("READY") == 1, "ready is said")
            self.assertTrue(self.manager.is_fed())
            self.assertEqual(self.manager.count("READY"), 1)

    def test_addresses(self):
        name = "@" + self.manager.path
        self.manager.close()
        self.manager.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.socket.bind(name.replace("@", "\0"))
        self.manager.socket.setblocking(False)
        with Daemon(environment={"NOTIFY_SOCKET": name}):
            wait_until(lambda: self.manager.count("READY"), "ready")
        for nobody in ("relative", "/nonexistent", "@nobody", "/" + "x" * 200, "vsock:2:1"):
            with Daemon(environment={"NOTIFY_SOCKET": nobody, "WATCHDOG_USEC": "1000"}) as d:
                self.assertEqual(d.generate().status, 200)

    def test_another_process_is_meant(self):
        environment = {"NOTIFY_SOCKET": self.manager.path, "WATCHDOG_USEC": "600000", "WATCHDOG_PID": "1"}
        with Daemon(environment=environment):
            wait_until(lambda: self.manager.count("READY"), "ready")
            time.sleep(2 * WATCHDOG_S)
            self.assertEqual(self.manager.count("WATCHDOG"), 0)

    def test_a_model_that_does_not_load(self):
        copy = os.path.join(self.folder, "model")
        shutil.copytree(daemon.MODEL, copy)
        for weights in pathlib.Path(copy, "unet").glob("*.safetensors"):
            os.truncate(weights, 1000)
        environment = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": self.manager.path, "STATE_DIRECTORY": self.folder}
        result = subprocess.run([daemon.PROGRAM, "--model", copy, "--listen", "127.0.0.1:0"], timeout=PATIENCE,
                                capture_output=True, check=False, env=environment)
        self.assertEqual(result.returncode, 1)
        self.assertEqual((self.manager.count("READY"), self.manager.count("STOPPING")), (0, 1))


if __name__ == "__main__":
    unittest.main(verbosity=2)
