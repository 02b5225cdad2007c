#!/usr/bin/env python3
"""Where the daemon listens: several addresses, IPv6, Unix sockets and their files, sockets that systemd passes."""
import http.client
import json
import os
import pathlib
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest

from daemon import LONG, MODEL, PATIENCE, PROGRAM, SMALL, Answer, Daemon, free_port, read_response, wait_until

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def connect_unix(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(PATIENCE)
    s.connect(str(path))
    return s


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = connect_unix(self.path)


def over_unix(path, method, where, fields=None):
    connection = UnixConnection(path)
    try:
        connection.request(method, where, None if fields is None else json.dumps(fields),
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def is_healthy(s):
    with s:
        s.sendall(HEALTH)
        return read_response(s).status == 200


def connect(*address):
    return socket.create_connection(address, PATIENCE)


def sockets_of(daemon):
    """How many the process has open."""
    folder = pathlib.Path(f"/proc/{daemon.process.pid}/fd")
    return sum(os.readlink(fd).startswith("socket:") for fd in folder.iterdir())


class Folder(unittest.TestCase):
    """A test with a folder for sockets; short, as their paths have to be."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="atedmd-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.path = self.folder / "a.sock"

    def run_refused(self, status, message, *flags, command=(PROGRAM,)):
        result = subprocess.run([*command, "--model", MODEL, "--job-store", str(self.folder / "refused.db"), *flags],
                                capture_output=True, text=True, timeout=PATIENCE, check=False)
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertIn(message, result.stderr)
        self.assertEqual(result.stdout, "")

    def daemon(self, listen, **options):
        return Daemon(listen=f"127.0.0.1:0,{listen}", **options)


class Several(Folder):
    def test_all_of_them_answer(self):
        listen = f"unix:{self.path},http://localhost:0" + (",[::1]:0" if has_ipv6() else "")
        with self.daemon(listen) as d:
            self.assertEqual(d.process.stdout.readline(), f"atedmd listening on unix:{self.path}\n")
            second = d.process.stdout.readline()
            self.assertRegex(second, r"^atedmd listening on http://(127\.0\.0\.1|\[::1\]):\d+\n$")
            self.assertTrue(is_healthy(connect("localhost", int(second.rsplit(":", 1)[1]))))
            if has_ipv6():
                third = d.process.stdout.readline()
                self.assertRegex(third, r"^atedmd listening on http://\[::1\]:\d+\n$")
                self.assertTrue(is_healthy(connect("::1", int(third.rsplit(":", 1)[1]))))
            self.assertEqual(over_unix(self.path, "POST", "/generate", SMALL).status, 200)
            self.assertEqual(d.generate().status, 200)

    @unittest.skipUnless(has_ipv6(), "no IPv6 here")
    def test_an_ipv6_address_is_only_itself(self):
        port = free_port()
        with self.daemon(f"[::]:{port}") as d:
            self.assertTrue(is_healthy(connect("::1", port)))
            with self.assertRaises(ConnectionRefusedError):
                connect("127.0.0.1", port)
            self.assertEqual(d.stop(), 0)
        with self.daemon(f"[::]:{port},0.0.0.0:{port}"):
            for host in ("::1", "127.0.0.1"):
                self.assertTrue(is_healthy(connect(host, port)))

    @unittest.skipUnless(has_ipv6(), "no IPv6 here")
    def test_no_address_is_all_of_both_kinds(self):
        port = free_port()
        with self.daemon(f":{port}"):
            for host in ("::1", "127.0.0.1"):
                self.assertTrue(is_healthy(connect(host, port)))

    def test_one_that_fails_fails_all(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            self.run_refused(1, f"listen: 127.0.0.1:{port}: Address already in use",
                             "--listen", f"unix:{self.path},127.0.0.1:{port}")
        self.assertFalse(self.path.exists(), "its file is left behind")

    def test_wrong_ones(self):
        for listen, message in (("127.0.0.1:65536", 'listen: "127.0.0.1:65536": the port is not within 0..65535'),
                                ("::1:8080", "needs brackets"), ("a:1,a:1", "is there twice"), ("a:1,", "is empty"),
                                (f"unix:/{'x' * 107}", "more than 107 bytes"), ("unix:a", "begin with /"),
                                (",".join(f"a:{i}" for i in range(17)), "more than 16 addresses")):
            self.run_refused(2, message, "--listen", listen)
        self.run_refused(1, "[127.0.0.1]:0", "--listen", "[127.0.0.1]:0")
        self.run_refused(1, "[::1%nowhere]:0", "--listen", "[::1%nowhere]:0")
        self.run_refused(2, "socket_mode: ", "--socket-mode", "0888")

    def test_a_reload_checks_them(self):
        config = self.folder / "atedmd.json"
        config.write_text('{"listen": "127.0.0.1:0"}')
        with Daemon(listen=None, config=config) as d:
            for listen, outcome in (("127.0.0.1", "not ADDRESS:PORT"), ("https://127.0.0.1:0", "tls_cert: listen has"),
                                    ("127.0.0.1:0,[::1]:0", "needs a restart listen=")):
                config.write_text(json.dumps({"listen": listen}))
                d.process.send_signal(signal.SIGHUP)
                wait_until(lambda: outcome in d.log(), outcome)
            self.assertEqual(d.get("/healthz").status, 200)

    def test_limits_are_shared(self):
        with self.daemon(f"unix:{self.path}", max_connections=3) as d:
            time.sleep(0.3)  # connections of the start go
            before = sockets_of(d)
            idle = [d.connect(), connect_unix(self.path), connect_unix(self.path)]
            wait_until(lambda: sockets_of(d) == before + 3, "they are taken")
            # One after the other: what a listener has room for is what the other has left.
            for another in (d.connect, lambda: connect_unix(self.path)):
                with another() as waits:
                    waits.sendall(HEALTH)
                    waits.settimeout(0.5)
                    with self.assertRaises(TimeoutError):
                        waits.recv(1)
                    idle.pop(0).close()
                    waits.settimeout(PATIENCE)
                    self.assertEqual(read_response(waits).status, 200)
                wait_until(lambda: sockets_of(d) == before + 2, "it has ended")
                idle.append(d.connect())
                wait_until(lambda: sockets_of(d) == before + 3, "it is taken")
            for s in idle:
                s.close()

    def test_out_of_descriptors(self):
        with self.daemon(f"unix:{self.path}") as d:
            limits = resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE)
            used = max(int(name) for name in os.listdir(f"/proc/{d.process.pid}/fd")) + 1
            resource.prlimit(d.process.pid, resource.RLIMIT_NOFILE, (used + 4, limits[1]))
            taken = [d.connect() for _ in range(20)] + [connect_unix(self.path) for _ in range(20)]
            wait_until(lambda: "connections have to wait to be accepted" in d.log(), "it is told")
            for s in taken:
                s.close()
            self.assertTrue(is_healthy(d.connect()))
            self.assertTrue(is_healthy(connect_unix(self.path)))


class UnixSockets(Folder):
    def test_permissions(self):
        with self.daemon(f"unix:{self.path}"):
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o660)
        with self.daemon(f"unix:{self.path}", socket_mode="0600"):
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_the_file_of_a_killed_daemon(self):
        with self.daemon(f"unix:{self.path}") as d:
            d.kill()
        self.assertTrue(self.path.exists())
        with self.daemon(f"unix:{self.path}"):
            self.assertTrue(is_healthy(connect_unix(self.path)))
        self.assertFalse(self.path.exists(), "it goes with the daemon")

    def test_the_file_of_a_living_one(self):
        with self.daemon(f"unix:{self.path}"):
            self.run_refused(1, f"listen: unix:{self.path}: somebody listens there (is another atedmd running?)",
                             "--listen", f"unix:{self.path}")
            self.assertTrue(is_healthy(connect_unix(self.path)))

    def test_files_that_are_something_else(self):
        self.path.write_text("mine")
        self.run_refused(2, "there is a file that is no socket", "--listen", f"unix:{self.path}")
        self.assertEqual(self.path.read_text(), "mine")
        self.path.unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(self.path))
            self.run_refused(1, "the socket that is there: Protocol wrong type", "--listen", f"unix:{self.path}")
            self.assertTrue(self.path.exists())
        self.run_refused(1, "No such file or directory", "--listen", f"unix:{self.folder}/none/a.sock")

    def test_another_ones_file_stays(self):
        with self.daemon(f"unix:{self.path}") as d:
            self.path.unlink()
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(self.path))
                self.assertEqual(d.stop(), 0)
                self.assertTrue(self.path.exists())

    def test_the_next_daemon_does_not_wait_for_the_last_one(self):
        with self.daemon(f"unix:{self.path}") as d, d.start():
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            d.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not self.path.exists(), "the file is gone")
            self.assertIsNone(d.process.poll())
            with self.daemon(f"unix:{self.path}"):
                self.assertTrue(is_healthy(connect_unix(self.path)))
                d.kill()
            self.assertFalse(self.path.exists())

    def test_hang_up(self):
        with self.daemon(f"unix:{self.path}") as d:
            body = json.dumps(LONG).encode()
            with connect_unix(self.path) as s:
                s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                          b"Content-Length: %d\r\n\r\n" % len(body) + body)
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            wait_until(lambda: d.gauge("atedm_active_requests") == 0, "it was canceled")


# Starts the daemon as systemd would: with our descriptors, from 100 on, as those behind its standard ones.
PASS = """
import os, sys
count = int(os.environ["LISTEN_FDS"])
for i in range(count):
    os.dup2(100 + i, 3 + i)
os.closerange(3 + count, 256)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""


class Systemd(Folder):
    def passing(self, sockets, listen="systemd", names=None, flags=()):
        count = len(sockets)
        # Where they are wanted some of them may lie already.
        high = [os.dup(s.fileno()) for s in sockets]
        moved = [os.dup2(fd, 100 + i, inheritable=True) for i, fd in enumerate(high)]
        for fd in high:
            os.close(fd)
        command = [sys.executable, "-c", PASS, PROGRAM, "--model", MODEL, "--listen", listen,
                   "--job-store", str(self.folder / "jobs.db"), *flags]
        environment = {**os.environ, "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names or ":".join(["x"] * count)}
        try:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                    env=environment, pass_fds=moved)
        finally:
            for fd in moved:
                os.close(fd)

    def test_they_answer_and_stay(self):
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as local:
            local.bind(str(self.path))
            local.listen()
            port = tcp.getsockname()[1]
            with self.passing([tcp, local], "systemd,127.0.0.1:0") as process:
                lines = [process.stdout.readline() for _ in range(3)]
                self.assertEqual(lines[:2], [f"atedmd listening on http://127.0.0.1:{port}\n",
                                             f"atedmd listening on unix:{self.path}\n"])
                self.assertTrue(is_healthy(connect("127.0.0.1", port)))
                self.assertTrue(is_healthy(connect("127.0.0.1", int(lines[2].rsplit(":", 1)[1]))))
                self.assertTrue(is_healthy(connect_unix(self.path)))
                process.terminate()
                process.communicate()
                self.assertEqual(process.returncode, 0)
            self.assertTrue(self.path.exists())
            # What comes meanwhile waits for the next one.
            with connect("127.0.0.1", port) as early:
                early.sendall(HEALTH)
                with self.passing([tcp, local]) as process:
                    self.assertEqual(read_response(early).status, 200)
                    process.terminate()
                    process.communicate()

    def check_refused(self, status, message, sockets, **more):
        with self.passing(sockets, **more) as process:
            output, errors = process.communicate(timeout=PATIENCE)
            self.assertEqual((process.returncode, output), (status, ""), errors)
            self.assertIn(message, errors)

    def test_what_cannot_be_listened_on(self):
        self.check_refused(2, "systemd: no sockets were passed", [])
        self.run_refused(2, "systemd: no sockets were passed", "--listen", "systemd",
                         command=("env", "LISTEN_FDS=1", "LISTEN_PID=1", PROGRAM))
        left, right = socket.socketpair()
        with left, right:
            self.check_refused(2, "descriptor 3 is no stream socket that listens", [left])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            self.check_refused(2, "descriptor 3 is no stream socket that listens", [udp])

    def test_too_many(self):
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(17)]
        for s in sockets:
            self.addCleanup(s.close)
        self.check_refused(1, "more than 16 sockets with systemd's", sockets)
        self.check_refused(1, "more than 16 sockets with systemd's", sockets[:16], listen="127.0.0.1:0,systemd")
        self.check_refused(1, "more than 16 sockets with systemd's", sockets[:16], listen="systemd,127.0.0.1:0")

    def test_a_name_asks_for_tls(self):
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.check_refused(1, "TLS needs the options tls_cert and tls_key", [s, s], names="http:https")
            self.check_refused(1, "TLS needs the options tls_cert and tls_key", [s, s], names="https:x")


if __name__ == "__main__":
    unittest.main()
