"""A live atedmd for the tests of this folder, and small clients for it.

The environment says what runs: ATEDMD (the program), ATEDM_TEST_MODEL (a model directory) and, where it is set,
ATEDM_TEST_BACKEND (the backend of daemons for which a test names none) and ATEDM_TEST_PATIENCE (seconds).
"""
import base64
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import zlib

import environment  # noqa: F401  (what the shell exports is none of the tests')

PROGRAM = os.environ["ATEDMD"]
MODEL = os.environ["ATEDM_TEST_MODEL"]

# Seconds that anything here may take on a busy machine before the test fails; more on an emulated device.
PATIENCE = int(os.environ.get("ATEDM_TEST_PATIENCE", "60"))

# The smallest request: as fast as it gets.
SMALL = {"prompt": "a red circle", "width": 32, "height": 32, "steps": 2, "seed": 7}
# One that keeps the worker busy until it is given up.
LONG = {"prompt": "a red circle", "width": 256, "height": 256, "steps": 150, "num_images": 4}


def wait_until(condition, what):
    """Waits for condition() to hold and returns its value."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {PATIENCE} s")


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    def pointers(self):
        return sorted(error["pointer"] for error in self.json()["errors"])


class Daemon:
    """`with Daemon(queue_limit=1) as d:`; options are those of the command line, None for none. `environment` is added
    to the own one."""

    def __init__(self, wait=True, model=MODEL, environment=None, **options):
        self.wait = wait
        self.environment = environment or {}
        self.state = tempfile.TemporaryDirectory(prefix="atedmd-")
        flags = {"model": model, "listen": "127.0.0.1:0", "log_level": "debug",
                 "default_pruning": "at-edm", "job_store": self.state.name + "/jobs.db",
                 "backend": os.environ.get("ATEDM_TEST_BACKEND"), **options}
        self.command = [PROGRAM]
        for name, value in flags.items():
            if value is not None:
                self.command += ["--" + name.replace("_", "-"), str(value)]
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True, env={**os.environ, **self.environment})
        line = self.process.stdout.readline()
        match = re.fullmatch(r"atedmd listening on http://(127\.0\.0\.1):(\d+)\n", line)
        if not match:
            self.process.wait(PATIENCE)
            raise AssertionError(f"first line {line!r}; log:\n{self.log()}")
        self.host, self.port = match.group(1), int(match.group(2))
        if self.wait:
            wait_until(lambda: self.get("/readyz").status == 200, "ready")
        return self

    def __exit__(self, kind, value, traceback):
        if self.process.poll() is None:
            status = self.stop()
            if kind is None and status != 0:
                raise AssertionError(f"exit status {status}; log:\n{self.log()}")
        self.process.stdout.close()
        if kind is not None:
            print(self.log())
        self.errors.close()
        self.state.cleanup()

    def log(self):
        # Opened anew: the position of self.errors is the daemon's too.
        with open(f"/proc/self/fd/{self.errors.fileno()}", encoding="utf-8") as file:
            return file.read()

    def stop(self, number=signal.SIGTERM):
        """Sends the signal and returns the exit status."""
        self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"does not end after a signal; log:\n{self.log()}") from None

    def kill(self):
        """As if the machine had lost power."""
        self.process.kill()
        self.process.wait()

    def workers(self):
        """Process numbers of its workers."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def paths(self):
        """All that GET has an answer for, without those that have parameters."""
        return {path for path, item in self.get("/openapi.json").json()["paths"].items()
                if "get" in item and "{" not in path}

    def connect(self):
        return socket.create_connection((self.host, self.port), PATIENCE)

    def connection(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)

    def request(self, method, path, body=None, headers=None, connection=None):
        own = connection is None
        c = connection or self.connection()
        try:
            c.request(method, path, body, headers or {})
            response = c.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            if own:
                c.close()

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def post(self, path, fields, headers=None, **more):
        """`fields`: anything for JSON, or bytes as they are."""
        body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
        return self.request("POST", path, body,
                            {"Content-Type": "application/json", **(headers or {})}, **more)

    def generate(self, fields=None, **more):
        return self.post("/generate", {**SMALL, **(fields or {})}, **more)

    def start(self, fields=None):
        """Sends a request and leaves: the socket, to be read from or closed."""
        body = json.dumps(fields or LONG).encode()
        s = self.connect()
        s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return s

    def in_background(self, fields):
        """Posts to /generate in a thread: an object whose .answer() waits for the end."""
        return Background(lambda: self.post("/generate", fields))

    def metrics(self):
        return parse_metrics(self.get("/metrics").body.decode())

    def gauge(self, name, **labels):
        return self.metrics().get(series(name, **labels), 0)


def enter_class(case, daemon):
    """Starts a daemon for all tests of a TestCase; it has to end well behind the last."""
    daemon.__enter__()
    case.addClassCleanup(daemon.__exit__, None, None, None)
    return daemon


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Background:
    def __init__(self, call):
        self.result = None
        self.ended = None
        self.thread = threading.Thread(target=self.run, args=(call,), daemon=True)
        self.thread.start()

    def run(self, call):
        try:
            self.result = call()
        except Exception as error:  # handed to whoever waits
            self.result = error
        self.ended = time.monotonic()

    def answer(self):
        self.thread.join(PATIENCE)
        if self.result is None:
            raise AssertionError("no answer")
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def read_response(s):
    """One response from a socket: (status, headers, body)."""
    response = http.client.HTTPResponse(s)
    response.begin()
    return Answer(response.status, response.headers, response.read())


# ---- metrics


def series(name, **labels):
    return (name, tuple(sorted(labels.items())))


def parse_metrics(text):
    """{(name, labels): value}; fails on a line that is not in the text format."""
    values, types = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} has two types"
            types[name] = kind
            continue
        if line.startswith("# HELP "):
            continue
        match = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
        assert match, f"not a line of the format: {line!r}"
        labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
        base = re.sub(r"_(bucket|sum|count)$", "", match.group(1))
        assert match.group(1) in types or types.get(base) == "histogram", f"no type: {line!r}"
        key = series(match.group(1), **labels)
        assert key not in values, f"twice: {line!r}"
        values[key] = float(match.group(3))
    return values


# ---- PNG


def read_png(data):
    """(width, height, RGB bytes, {keyword: text}); fails on anything that is not as it should be."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n", "signature"
    at, width, height, packed, texts = 8, 0, 0, b"", {}
    kind = None
    while kind != b"IEND":
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        chunk = data[at + 8:at + 8 + size]
        crc = struct.unpack(">I", data[at + 8 + size:at + 12 + size])[0]
        assert zlib.crc32(kind + chunk) == crc, f"checksum of {kind}"
        at += 12 + size
        if kind == b"IHDR":
            width, height, depth, color, *_ = struct.unpack(">IIBBBBB", chunk)
            assert (depth, color) == (8, 2), "8-bit RGB"
        elif kind == b"IDAT":
            packed += chunk
        elif kind == b"tEXt":
            key, text = chunk.split(b"\0", 1)
            texts[key.decode("latin-1")] = text.decode("latin-1")
        elif kind == b"iTXt":
            key, rest = chunk.split(b"\0", 1)
            compressed, rest = rest[0], rest[2:]
            _, _, text = rest.split(b"\0", 2)
            texts[key.decode("latin-1")] = (zlib.decompress(text) if compressed else text).decode()
    assert at == len(data), "data behind the end"
    return width, height, zlib.decompress(packed), texts


def images_of(answer):
    return [base64.b64decode(image["b64_json"], validate=True) for image in answer.json()["images"]]
