#!/usr/bin/env python3
"""atedm request: against a daemon, which may go away meanwhile, and against a small server in Python that answers what a
test wants it to."""
import http.server
import json
import os
import pathlib
import pty
import resource
import re
import signal
import subprocess
import threading
import time
import unittest

from certificates import Authority
from cli_common import ATEDM, CommandTest, read_png
from daemon import LONG, PATIENCE, SMALL, Daemon, enter_class, free_port, images_of, wait_until
from key_file import JsonFile, entry, make_key


def options_of(fields):
    """A request's fields as options."""
    return [text for name, value in fields.items()
            for text in ("--" + name.replace("_", "-"), str(value) if isinstance(value, (str, int)) else json.dumps(value))]


def url_of(d):
    return f"http://{d.host}:{d.port}"


class RequestTest(CommandTest):
    def setUp(self):
        super().setUp()
        self.file = self.folder / "picture.png"

    def start(self, url, fields, **more):
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        process = subprocess.Popen([ATEDM, "request", "--url", url, *options_of(fields), "-o", str(self.file), "--json"],
                                   text=True, **more)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def finish(self, process, status):
        """Returns what it said on standard output and standard error."""
        said = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, status, said)
        return said

    def refused(self, status, url, *args):
        return self.run_wrong(status, "request", "--url", url, "-o", self.file, *args)


class AgainstADaemon(RequestTest):
    @classmethod
    def setUpClass(cls):
        cls.daemon = enter_class(cls, Daemon())
        cls.url = url_of(cls.daemon)

    def run_request(self, fields):
        return self.run_json("request", "--url", self.url, *options_of(fields), "-o", self.file)

    def test_the_picture_is_the_daemon_s(self):
        for fields in (SMALL, {**SMALL, "negative_prompt": "blue", "guidance_scale": 3, "priority": -3, "sampler": "dpmpp_2m",
                               "pruning": {"preset": "at-edm", "ratio": 0.6}, "deadline_s": PATIENCE}):
            with self.subTest(fields=fields):
                result = self.run_request(fields)
                waited = self.daemon.generate(fields)
                self.assertEqual(self.file.read_bytes(), images_of(waited)[0])
                self.assertEqual(result["pruning"]["phases"], waited.json()["pruning"]["phases"])
                self.assertEqual(result["flops"]["executed"], waited.json()["flops"]["executed"])
                self.assertEqual(result["images"][0]["file"], str(self.file))

    def test_several(self):
        result = self.run_request({**SMALL, "num_images": 3, "seed": 11})
        names = [str(self.folder / f"picture-{i}.png") for i in range(3)]
        self.assertEqual([(i["file"], i["seed"]) for i in result["images"]], list(zip(names, (11, 12, 13))))
        self.assertEqual([read_png(name)[:2] for name in names], [(32, 32)] * 3)

    def test_what_it_says(self):
        said = self.run_ok("request", "--url", self.url, *options_of(SMALL), "-o", self.file)
        first, second, third = said.splitlines()
        self.assertEqual(first, f"{self.file}: 32x32, seed 7")
        self.assertRegex(second, r"^\d+\.\d\d s: waited .*, 2 steps .*\(tiny-model\)$")
        self.assertRegex(third, r"^pruning at-edm: UNet at \d+\.\d % of its FLOPs, .* TFLOPs in all$")

    def test_warnings(self):
        result = subprocess.run([ATEDM, "request", "--url", self.url, *options_of({**SMALL, "prompt": "word " * 100}), "-o",
                                 self.file], capture_output=True, text=True, check=True, timeout=PATIENCE)
        self.assertIn("atedm request: prompt is longer than the text encoders take; cut after byte ", result.stderr)

    def test_wrong_fields_are_options(self):
        said = self.refused(2, self.url, "--prompt", "", "--steps", 0, "--pruning", '{"ratio": 2}')
        self.assertEqual(sorted(line.split(":")[1] for line in said.splitlines()),
                         [" --prompt", " --pruning/ratio", " --steps"])
        self.assertFalse(self.file.exists())

    def test_problems(self):
        self.assertIn("The deadline cannot be met", self.refused(1, self.url, "--prompt", "x", "--deadline-s", 1e-3))

    def test_interruption_cancels(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start(self.url, LONG)
            wait_until(lambda: self.daemon.gauge("atedm_active_requests") == 1, "it runs")
            process.send_signal(number)
            self.assertEqual(self.finish(process, 1), ("", "atedm request: canceled\n"))
            self.assertEqual(self.daemon.get("/jobs?limit=1").json()["jobs"][0]["state"], "canceled")
            self.assertFalse(self.file.exists())

    def test_its_end_elsewhere(self):
        process = self.start(self.url, LONG)
        wait_until(lambda: self.daemon.gauge("atedm_active_requests") == 1, "it runs")
        job = self.daemon.get("/jobs?limit=1").json()["jobs"][0]["id"]
        self.daemon.request("DELETE", "/jobs/" + job)
        self.assertIn("The job was canceled", self.finish(process, 1)[1])

    def test_progress_on_a_terminal(self):
        parent, child = pty.openpty()
        self.addCleanup(os.close, parent)
        process = self.start(self.url, {**LONG, "num_images": 1}, stderr=child)
        os.close(child)
        shown = ""

        def look():
            nonlocal shown
            shown += os.read(parent, 4096).decode()
            return re.search(r"\] step [1-9]\d* of 150, ", shown)

        wait_until(look, "the bar says what there is")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        try:
            while more := os.read(parent, 4096):
                shown += more.decode()
        except OSError:
            pass  # how Linux says that the other side is closed
        self.assertTrue(shown.endswith("\r\x1b[Katedm request: canceled\r\n"), repr(shown[-80:]))

    def test_files_that_cannot_be_written(self):
        full_disk = self.folder / "full.png"
        full_disk.symlink_to("/dev/full")
        for output, asks in ((self.folder / "no" / "a.png", 0), (self.folder, 0), (full_disk, 1)):
            before = self.daemon.gauge("atedm_requests_total", route="/generate", code="202")
            said = self.run_wrong(1, "request", "--url", self.url, *options_of(SMALL), "-o", output)
            self.assertIn(f"atedm request: {output}: ", said)
            asked = self.daemon.gauge("atedm_requests_total", route="/generate", code="202") - before
            self.assertEqual(asked, asks, "no picture is made for a folder that is not there")
            self.assertEqual(f"atedm request: the job is {self.url}/jobs/" in said, asks == 1)
        with open("/dev/full", "w", encoding="utf-8") as full:
            for flags in ([], ["--json"]):
                result = subprocess.run([ATEDM, "request", "--url", self.url, *options_of(SMALL), "-o", self.file, *flags],
                                        stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE)
                self.assertEqual((result.returncode, result.stderr),
                                 (1, "atedm request: the report could not be written\n"))


    def test_a_picture_that_was_there_stays_where_another_is_not_written(self):
        self.file.write_bytes(b"an older one")

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # bytes of a file

        process = self.start(self.url, SMALL, preexec_fn=limit)
        self.assertIn("File too large", self.finish(process, 1)[1])
        self.assertEqual([(p.name, p.read_bytes()) for p in self.folder.iterdir()], [(self.file.name, b"an older one")])

    def test_interrupted_at_the_end(self):
        with Stub({**GOOD, "/jobs/0a/images/0": [2]}) as stub:
            process = self.start(stub.url, SMALL)
            wait_until(lambda s=stub: s.calls and s.calls[-1][1] == "/jobs/0a/images/0", "it gets the picture")
            process.send_signal(signal.SIGINT)
            self.assertEqual(self.finish(process, 1)[1], f"atedm request: interrupted; the job is done: {stub.url}/jobs/0a\n")
            self.assertNotIn("DELETE", [call[0] for call in stub.calls])


class WaysThere(RequestTest):
    def test_a_unix_socket_tls_and_a_key(self):
        authority, key = Authority(self.folder), make_key()
        cert, private, path = (self.folder / name for name in ("cert.pem", "key.pem", "s"))
        authority.sign(cert, private)
        keys = JsonFile(self, {"keys": [entry("me", key)]})
        with Daemon(listen=f"127.0.0.1:0,https://127.0.0.1:0,unix:{path}", tls_cert=cert, tls_key=private, api_keys=keys,
                    wait=False) as d:
            wait_until(lambda: d.get("/readyz").status == 200, "ready")
            secure = d.process.stdout.readline().removeprefix("atedmd listening on ").strip()
            common = (*options_of(SMALL), "-o", self.file, "--api-key", key)
            self.run_ok("request", "--unix-socket", path, "--url", "http://localhost", *common)
            self.run_ok("request", "--ca-file", authority.file, "--url", secure, *common)
            self.assertIn("An API key is needed", self.refused(1, url_of(d), *options_of(SMALL)))
            self.assertIn("certificate", self.refused(1, secure, *options_of(SMALL), "--api-key", key))


class DaemonsThatGo(RequestTest):
    """On one port and one store, as a service that is started again."""

    def daemon(self, **options):
        self.port = getattr(self, "port", None) or free_port()
        return Daemon(listen=f"127.0.0.1:{self.port}", job_store=self.folder / "jobs.db", **options)

    def test_a_job_outlives_its_daemon(self):
        fields = {**SMALL, "width": 128, "height": 128, "steps": 60, "guidance_scale": 2}
        with self.daemon() as d:
            expected = images_of(d.generate(fields))[0]
            process = self.start(url_of(d), fields)
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            d.kill()
        time.sleep(0.3)  # nobody is there
        with self.daemon():
            self.finish(process, 0)
        self.assertEqual(self.file.read_bytes(), expected)

    def test_nor_does_a_deployment_end_it(self):
        with self.daemon(drain_timeout_s=0) as d:
            process = self.start(url_of(d), {**LONG, "num_images": 1, "steps": 100})
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            self.assertEqual(d.stop(), 0)
        with self.daemon() as d:
            self.finish(process, 0)
            self.assertEqual(len(d.get("/jobs").json()["jobs"]), 1)

    def test_nobody_there(self):
        start = time.monotonic()
        self.assertIn("connect", self.refused(1, f"http://127.0.0.1:{free_port()}", "--prompt", "x"))
        self.assertLess(time.monotonic() - start, 10, "it does not wait for who was never there")

    def test_interrupted_while_it_cannot_be_canceled(self):
        with self.daemon() as d:
            process = self.start(url_of(d), LONG)
            wait_until(lambda: d.gauge("atedm_requests_total", route="/jobs/{id}/events", code="200") == 1, "it knows its job")
            d.process.send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGINT)
            said = self.finish(process, 1)[1]
            self.assertIn(f"the job goes on: {url_of(d)}/jobs/", said)
            d.process.send_signal(signal.SIGCONT)
            d.request("DELETE", said.split(url_of(d))[1].strip())


class Stub:
    """`with Stub(answers) as s:`; answers: {path: [(status, headers, body), ...]}, the last one of a path again and again.
    In place of an answer: seconds until the connection is closed without one. In place of a body: what writes a part of it."""

    def __init__(self, answers):
        stub = self
        self.answers = {path: list(some) for path, some in answers.items()}
        self.calls = []
        self.closing = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                stub.calls.append((self.command, self.path, dict(self.headers), body))
                some = stub.answers[self.path]
                answer = some.pop(0) if len(some) > 1 else some[0]
                if isinstance(answer, int):
                    stub.closing.wait(answer)
                    self.close_connection = True
                    return
                status, headers, body = answer
                self.send_response(status)
                for name, value in headers.items():
                    if name != "Content-Length":
                        self.send_header(name, value)
                self.send_header("Content-Length", headers.get("Content-Length") or str(len(body)))
                self.end_headers()
                if callable(body):
                    body(self.wfile)
                    self.close_connection = True
                else:
                    self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


ACCEPTED = (202, {}, b'{"id": "0a"}')
ENDED = (200, {"Content-Type": "text/event-stream"}, b"event: done\ndata: {}\n\n")
DONE = (200, {}, json.dumps({"result": {"model": "m", "images": [{"url": "x"}]}}).encode())
PNG = (200, {}, b"a picture")
GOOD = {"/generate": [ACCEPTED], "/jobs/0a/events": [ENDED], "/jobs/0a": [DONE], "/jobs/0a/images/0": [PNG]}
AWAY = (503, {}, b'{"title": "The server is shutting down", "detail": "soon"}')


class AgainstOthers(RequestTest):
    def test_what_is_sent(self):
        with Stub(GOOD) as stub:
            self.run_json("request", "--url", stub.url + "/", "--prompt", "a", "--guidance-scale", "7.1", "--seed", 2 ** 63 - 1,
                          "--priority", -10, "--pruning", "off", "-o", self.file)
            (_, _, headers, body), *rest = stub.calls
        self.assertEqual(json.loads(body), {"prompt": "a", "guidance_scale": 7.1, "seed": 2 ** 63 - 1, "priority": -10,
                                            "pruning": "off"})
        self.assertEqual((headers["Prefer"], headers["Content-Type"]), ("respond-async", "application/json"))
        self.assertRegex(headers["Idempotency-Key"], "^[0-9a-f]{32}$")
        self.assertEqual([call[:2] for call in rest], [("GET", path) for path in list(GOOD)[1:]])
        self.assertEqual(self.file.read_bytes(), b"a picture")

    def test_answers_that_are_late(self):
        """A proxy whose daemon is being started again; streams that end too early."""
        cut = (200, {}, b"event: progress\ndata: {")
        answers = {path: [AWAY, answer] for path, (answer,) in list(GOOD.items())[1:]}
        answers["/jobs/0a/events"] = [cut, (502, {}, b"<html>"), AWAY, ENDED]
        with Stub({**GOOD, **answers}) as stub:
            self.run_json("request", "--url", stub.url, "--prompt", "a", "-o", self.file)
        self.assertEqual(self.file.read_bytes(), b"a picture")

    def test_a_stream_that_breaks_late(self):
        """Patience is with who is away: a daemon that was there for longer than that is not given up at once."""
        def wait(file):
            for _ in range(5):
                file.write(b":\n\n")
                time.sleep(1)

        late = (200, {"Content-Length": "1000"}, wait)
        with (Stub({**GOOD, "/jobs/0a/events": [late, ENDED]}) as stub,
              Stub({**GOOD, "/jobs/0a/events": [(200, {}, b"")]}) as fruitless):
            fields = {**SMALL, "patience": 3}
            process, other = self.start(stub.url, fields), self.start(fruitless.url, fields)
            self.finish(process, 0)
            self.assertIn("the answer does not come from atedmd", self.finish(other, 1)[1], "streams that end at once")

    def test_answers_that_are_none(self):
        problem = (429, {"Retry-After": "7"}, b'{"title": "Too fast", "detail": "slowly"}')
        failed = (200, {}, b'{"error": {"title": "It failed", "detail": "somehow"}}')
        for path, answer, said in (
                ("/generate", problem, "Too fast: slowly (try again in 7 s)"),
                ("/generate", AWAY, "The server is shutting down: soon"),
                ("/generate", (200, {}, b"<html>"), "the daemon answered 200"),
                ("/generate", (202, {}, b"<html>"), "the answer does not come from atedmd"),
                ("/generate", (202, {}, b'{"id": "../x"}'), "the answer does not come from atedmd"),
                ("/generate", (202, {}, json.dumps({"id": "a" * 64}).encode()), "the answer does not come from atedmd"),
                ("/jobs/0a/events", (404, {}, b"{}"), "?: ?"),
                ("/jobs/0a", failed, "It failed: somehow"),
                ("/jobs/0a", (200, {}, b"[]"), "the answer does not come from atedmd"),
                ("/jobs/0a", (410, {}, b""), "the daemon answered 410"),
                ("/jobs/0a/images/0", (404, {}, b""), "the daemon answered 404")):
            with self.subTest(path=path, answer=answer), Stub({**GOOD, path: [answer]}) as stub:
                first = self.refused(1, stub.url, "--prompt", "a").splitlines()[0]
                self.assertEqual(first.removeprefix("atedm request: "), said)
                self.assertFalse(self.file.exists())

    def test_an_answer_that_is_too_large(self):
        for path in GOOD:
            large = (GOOD[path][0][0], {"Content-Length": str(512 * 1024 * 1024 + 1)}, b"")
            with self.subTest(path=path), Stub({**GOOD, path: [large]}) as stub:
                said = self.refused(1, stub.url, "--prompt", "a").splitlines()
                self.assertEqual(said[0], "atedm request: the answer has more than 536870912 bytes")
                self.assertEqual(said[1:], [] if path == "/generate" else [f"atedm request: the job is {stub.url}/jobs/0a"])

    def test_interrupted_before_it_is_accepted(self):
        slow = 10
        for again, said in ((slow, "interrupted; the daemon may have the request"), (ACCEPTED, "canceled")):
            with self.subTest(said=said), Stub({**GOOD, "/generate": [slow, again]}) as stub:
                process = self.start(stub.url, SMALL)
                wait_until(lambda s=stub: s.calls, "it is sent")
                process.send_signal(signal.SIGINT)
                self.assertEqual(self.finish(process, 1)[1], f"atedm request: {said}\n")
                keys = {call[2].get("Idempotency-Key") for call in stub.calls if call[0] == "POST"}
                self.assertEqual(len(keys), 1, "the same job")
                self.assertEqual([call[:2] for call in stub.calls if call[0] != "POST"],
                                 [("DELETE", "/jobs/0a")] if again is ACCEPTED else [])


class Usage(CommandTest):
    def test_wrong_options(self):
        for args, said in (((), "--output is missing"), (("-o", "a"), "--prompt is missing"),
                           (("-o", "a", "--prompt", "a", "b"), '"b" is not an option'),
                           (("-o", "a", "--prompt", b"\xff"), "is not UTF-8"),
                           (("--steps", "1.5"), "is not an integer"), (("--seed", 2 ** 63), "is not an integer"),
                           (("--guidance-scale", "x"), "is not a number"),
                           (("--patience", "-1"), "is not 0..1e+06 s"), (("--patience", "1000001"), "is not 0..1e+06 s"), (("--pruning", "{"), "is not a name or"),
                           (("-o", "a", "--prompt", "a", "--url", "localhost:8080"), "--url"),
                           (("-o", "a", "--prompt", "a", "--unix-socket", "x" * 108), "1..107 bytes"),
                           (("-o", "a", "--prompt", "a", "--ca-file", "/nonexistent"), "--ca-file"),
                           (("-o", "a", "--prompt", "a", "--api-key", "a b"), "--api-key")):
            with self.subTest(args=args):
                result = subprocess.run([ATEDM, "request", *(a if isinstance(a, bytes) else str(a) for a in args)],
                                        capture_output=True, check=False)
                self.assertEqual((result.returncode, result.stdout), (2, b""))
                self.assertIn(said, result.stderr.decode(errors="replace"))

    def test_every_field_is_an_option(self):
        root = pathlib.Path(__file__).resolve().parents[2]
        document = json.loads((root / "server/openapi.json").read_text(encoding="utf-8"))
        fields = set(document["components"]["schemas"]["GenerateRequest"]["properties"]) - {"response_format"}
        text = self.run_ok("request", "--help")
        for field in fields:
            self.assertIn("--" + field.replace("_", "-"), text)


if __name__ == "__main__":
    unittest.main()
