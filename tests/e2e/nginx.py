#!/usr/bin/env python3
"""nginx in front of the daemon, with deploy/nginx/atedmd.conf: everything that clients get without it they get with it,
at the same time. Skipped (77) where there is no nginx.

usage: nginx.py [--large] [TEST...]: with --large the large answers have 32 MB, which takes some minutes, else 6."""
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from certificates import Authority
from daemon import LONG, PATIENCE, SMALL, Background, Daemon, free_port, images_of, read_response, wait_until

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONF = pathlib.Path(__file__).resolve().parents[2] / "deploy/nginx/atedmd.conf"
# Pictures that hardly compress.
IMAGES, LARGE_BYTES = (11, 32e6) if "--large" in sys.argv else (2, 6e6)
LARGE = {"prompt": "a red circle", "width": 1024, "height": 1024, "num_images": IMAGES, "steps": 1, "guidance_scale": 1,
         "pruning": "off", "seed": 3}

MAIN = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/atedmd.conf;
}}
"""


class Nginx:
    """The real one, with the example of deploy/ but for its places."""

    def __init__(self, folder):
        self.folder, self.port, self.socket = folder, free_port(), folder / "atedmd.sock"
        self.authority = Authority(folder)
        self.authority.sign(folder / "cert.pem", folder / "key.pem")
        self.context = self.authority.context()
        text = CONF.read_text(encoding="utf-8")
        for old, new in (("unix:/run/atedmd/atedmd.sock", f"unix:{self.socket}"),
                         ("listen 443 ssl http2;", f"listen 127.0.0.1:{self.port} ssl http2;"),
                         ("    listen [::]:443 ssl http2;\n", ""),
                         ("atedm.example.org", "localhost"),
                         ("/etc/ssl/certs/atedm.pem", str(folder / "cert.pem")),
                         ("/etc/ssl/private/atedm.key", str(folder / "key.pem")),
                         ("/var/log/nginx/atedmd.log", str(folder / "access.log"))):
            assert text.count(old) == 1, f"{CONF} has {old!r} {text.count(old)} times"
            text = text.replace(old, new)
        (folder / "atedmd.conf").write_text(text, encoding="utf-8")
        # Its workers have to get at the socket.
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user="user root;" if os.geteuid() == 0 else ""))
        self.command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]

    def start(self):
        subprocess.run([*self.command, "-t", "-q"], check=True, timeout=PATIENCE)
        self.process = subprocess.Popen(self.command)
        wait_until(self.is_up, "nginx listens")

    def is_up(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
        except ConnectionRefusedError:
            return False
        return True

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)

    def log(self, name="access"):
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def connect(self, **more):
        return self.context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), PATIENCE, **more),
                                        server_hostname="localhost")

    def connection(self):
        return http.client.HTTPSConnection("localhost", self.port, timeout=8 * PATIENCE, context=self.context)

    def curl(self, *arguments):
        return ["curl", "-sS", "--max-time", str(PATIENCE), "--cacert", str(self.authority.file), "--http2", *arguments]


def sockets_of(pid):
    return sum(os.readlink(fd).startswith("socket:") for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir())


class Behind(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="atedmd-")
        self.addCleanup(folder.cleanup)
        self.n = Nginx(pathlib.Path(folder.name))
        self.n.start()
        self.addCleanup(self.n.stop)
        os.chmod(folder.name, 0o755)

    def daemon(self, **options):
        return Daemon(listen=f"127.0.0.1:0,unix:{self.n.socket}", **options)

    def ask(self, d, method, path, fields=None, headers=None):
        """Through nginx."""
        connection = self.n.connection()
        try:
            body = None if fields is None else fields if isinstance(fields, bytes) else json.dumps(fields)
            return d.request(method, path, body, {"Content-Type": "application/json", **(headers or {})},
                             connection=connection)
        finally:
            connection.close()

    def send(self, fields):
        """A request whose answer is read later, or never."""
        body = json.dumps(fields).encode()
        s = self.n.connect()
        s.sendall(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return s

    def test_answers(self):
        with self.daemon() as d:
            expected = d.generate()
            answer = self.ask(d, "POST", "/generate", SMALL)
            self.assertEqual(answer.status, 200)
            self.assertEqual(images_of(answer), images_of(expected))
            # The same id in the answer and in both logs.
            identifier = answer.headers["X-Request-Id"]
            self.assertIn(f"id={identifier}\n", wait_until(self.n.log, "nginx has logged it"))
            self.assertIn(f'id="{identifier}"', d.log())
            # Errors of the daemon pass as they are.
            answer = self.ask(d, "POST", "/generate", {})
            self.assertEqual((answer.status, answer.pointers()), (422, ["/prompt"]))
            self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
            self.assertEqual(self.ask(d, "GET", "/nothing").status, 404)
            self.assertEqual(self.ask(d, "DELETE", "/generate").headers["Allow"], "POST")
            # And over HTTP/2.
            result = subprocess.run(self.n.curl("-w", "\n%{http_version} %{http_code}", "-H", "Content-Type: application/json",
                                                "-d", json.dumps(SMALL), f"https://localhost:{self.n.port}/generate"),
                                    capture_output=True, text=True, check=True)
            body, end = result.stdout.rsplit("\n", 1)
            self.assertEqual(end, "2 200")
            self.assertEqual(json.loads(body)["images"], expected.json()["images"])

    def test_metrics_are_for_this_machine(self):
        with self.daemon() as d:
            self.assertEqual(self.ask(d, "GET", "/metrics").status, 200)
            self.assertEqual(self.ask(d, "GET", "/metrics/flops").status, 200)
            with self.n.connect(source_address=("127.0.0.2", 0)) as s:
                s.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertEqual(read_response(s).status, 403)
                s.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertEqual(read_response(s).status, 200)

    def test_connections_are_kept(self):
        with self.daemon() as d:
            self.ask(d, "GET", "/healthz")
            time.sleep(0.3)
            before = sockets_of(d.process.pid)
            for _ in range(20):
                self.assertEqual(self.ask(d, "GET", "/healthz").status, 200)
            self.assertEqual(sockets_of(d.process.pid), before)

    def test_connections_that_the_daemon_closes(self):
        with self.daemon(connection_timeout_s=1) as d:
            for _ in range(2):
                self.assertEqual(self.ask(d, "POST", "/generate", SMALL).status, 200)
                time.sleep(2.5)
            # A request may take longer than that.
            answer = self.ask(d, "POST", "/generate", {**LONG, "num_images": 1, "deadline_s": 3})
            self.assertEqual(answer.json()["type"], "urn:atedm:problem:deadline")

    def test_jobs_and_events(self):
        with self.daemon() as d:
            answer = self.ask(d, "POST", "/generate", {**LONG, "num_images": 1}, {"Prefer": "respond-async"})
            self.assertEqual(answer.status, 202)
            path = answer.headers["Location"]
            with self.n.connect() as s:
                s.sendall(f"GET {path}/events?previews=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                got = b""
                # Each at once: a step or two later, not when some buffer is full.
                while got.count(b"event: progress") < 5:
                    piece = s.recv(1 << 16)
                    self.assertTrue(piece, got)
                    got += piece
                    steps = [json.loads(line[6:])["step"] for line in got.decode().replace("\r\n", "").split("\n")
                             if line.startswith("data: {\"step\"") and line.endswith("}") and "b64" not in line]
                    if steps:
                        now = self.ask(d, "GET", path).json()["progress"]["step"]
                        self.assertLess(now - steps[-1], 20, "it came late")
                self.assertEqual(self.ask(d, "GET", path).json()["state"], "running")
                self.assertEqual(self.ask(d, "DELETE", path).json()["state"], "canceled")
                while b"event: error" not in got:
                    piece = s.recv(1 << 16)
                    self.assertTrue(piece, got)
                    got += piece
            answer = self.ask(d, "POST", "/generate", SMALL, {"Prefer": "respond-async"})
            path = answer.headers["Location"]
            self.assertIn(b"event: done", self.ask(d, "GET", path + "/events").body)
            image = self.ask(d, "GET", path + "/images/0")
            self.assertEqual(image.headers["Content-Type"], "image/png")
            self.assertEqual(image.body, images_of(d.generate())[0])

    def test_hang_up(self):
        with self.daemon() as d:
            with self.send(LONG):
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            wait_until(lambda: d.gauge("atedm_active_requests") == 0, "it was canceled")
            command = self.n.curl("-o", os.devnull, "-H", "Content-Type: application/json", "-d", json.dumps(LONG),
                                  f"https://localhost:{self.n.port}/generate")
            with subprocess.Popen(command) as curl:
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
                curl.kill()
            wait_until(lambda: d.gauge("atedm_active_requests") == 0, "it was canceled, over HTTP/2 too")
            self.assertEqual(d.gauge("atedm_queue_rejected_total", reason="client_gone"), 2)

    def test_bodies(self):
        with self.daemon() as d:
            size = 1 << 20
            text = b'{"prompt": "' + b"x" * (size - 14) + b'"}'
            self.assertEqual(len(text), size)
            answer = self.ask(d, "POST", "/generate", text)
            self.assertEqual((answer.status, answer.pointers()), (422, ["/prompt"]))
            answer = self.ask(d, "POST", "/generate", text + b" ")
            self.assertEqual(answer.json()["type"], "urn:atedm:problem:too-large")
            with self.n.connect() as s:
                s.sendall(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                          b"Content-Length: 3000000\r\n\r\n")
                self.assertEqual(read_response(s).status, 413)

    def test_large_answers(self):
        with self.daemon(max_images=IMAGES) as d:
            once = {"Idempotency-Key": "large"}  # made once, sent three times
            answer = self.ask(d, "POST", "/generate", LARGE, once)
            self.assertEqual(answer.status, 200)
            self.assertGreater(len(answer.body), LARGE_BYTES)
            self.assertEqual(len(answer.body), int(answer.headers["Content-Length"]))
            self.assertEqual(images_of(answer), images_of(d.post("/generate", LARGE, once)))
            # One that reads when the daemon has long ended: nginx has it all.
            connection = self.n.connection()
            connection.request("POST", "/generate", json.dumps(LARGE), {"Content-Type": "application/json", **once})
            response = connection.getresponse()
            begin = response.read(1000)
            started = time.monotonic()
            self.assertEqual(d.stop(), 0)
            self.assertLess(time.monotonic() - started, 8, "the daemon has waited for a slow client")
            self.assertEqual(begin + response.read(), answer.body)
            connection.close()

    def check_unavailable(self, answer, kinds=("unavailable",)):
        self.assertEqual(answer.status, 503)
        self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
        problem = answer.json()
        self.assertIn(problem["type"], ["urn:atedm:problem:" + kind for kind in kinds])
        self.assertEqual(problem["id"], answer.headers["X-Request-Id"])
        self.assertEqual((problem["status"], set(problem)), (503, {"type", "title", "status", "detail", "id"}))

    def test_from_drain_to_restart(self):
        with self.daemon() as d:
            self.assertEqual(self.ask(d, "GET", "/readyz").status, 200)
            running = Background(lambda: self.ask(d, "POST", "/generate", {**LONG, "num_images": 1, "steps": 30}))
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            d.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "signal" in d.log(), "the signal is seen")
            # Over a connection that nginx has kept the daemon says that it drains; without one nobody is there.
            for _ in range(3):
                self.check_unavailable(self.ask(d, "GET", "/readyz"), ("draining", "unavailable"))
                self.check_unavailable(self.ask(d, "POST", "/generate", SMALL), ("draining", "unavailable"))
            self.assertEqual(running.answer().status, 200)
            self.assertEqual(d.process.wait(PATIENCE), 0)
            self.check_unavailable(self.ask(d, "GET", "/readyz"))
        with self.daemon() as d:
            self.assertEqual(self.ask(d, "POST", "/generate", SMALL).status, 200)

    def test_a_daemon_that_dies(self):
        with self.daemon() as d:
            running = Background(lambda: self.ask(d, "POST", "/generate", LONG))
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            d.kill()
            self.check_unavailable(running.answer())
            self.check_unavailable(self.ask(d, "GET", "/healthz"))
        with self.daemon() as d:
            self.assertEqual(self.ask(d, "GET", "/healthz").status, 200)


if __name__ == "__main__":
    if not NGINX:
        print("no nginx here: deploy/install-deps.sh check installs it")
        sys.exit(77)
    unittest.main(argv=[word for word in sys.argv if word != "--large"])
