#!/usr/bin/env python3
"""atedm bench serve: against a daemon, whose own counts it has to agree with, and against a small
server in Python that answers, waits and fails as a test wants it."""
import http.server
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import threading
import time
import unittest
import xml.etree.ElementTree

from certificates import Authority
from cli_common import ATEDM, CommandTest, atedm
from daemon import PATIENCE, Daemon, enter_class, free_port, series, wait_until

SVG = "{http://www.w3.org/2000/svg}"
ANSWER = {"pruning": {"preset": "at-edm"},
          "flops": {"executed": 60, "baseline": 100, "overhead": 5, "saved_ratio": 0.4},
          "latency": {"queue_s": 0.001}, "batch": {"mean_size": 1.5, "max_size": 2},
          "images": [{"b64_json": "A" * 2_000_000}, {"b64_json": ""}]}


class Stub:
    """`with Stub(answer) as s:`; answer(handler, number) does what it likes, self.ok by default."""

    def __init__(self, answer=None):
        self.answer = answer or (lambda handler, number: self.ok(handler))
        self.lock = threading.Lock()
        self.bodies, self.headers = [], []
        self.open = self.most_open = 0
        self.release = threading.Event()  # for answers that wait
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with stub.lock:
                    number = len(stub.bodies)
                    stub.bodies.append(json.loads(body))
                    stub.headers.append({**self.headers, "path": self.path})
                    stub.open += 1
                    stub.most_open = max(stub.most_open, stub.open)
                try:
                    stub.answer(self, number)
                except OSError:
                    self.close_connection = True  # the client had enough
                finally:
                    with stub.lock:
                        stub.open -= 1

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()

    @staticmethod
    def send(handler, status, body, kind="application/json", length=None):
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    def ok(self, handler):
        with self.lock:
            self.open -= 1  # before the client can send the next one
        self.send(handler, 200, json.dumps(ANSWER).encode())
        with self.lock:
            self.open += 1

    def held(self, handler, _number):
        self.release.wait(PATIENCE)
        self.ok(handler)


class ServeTest(CommandTest):
    def serve(self, url, *args, status=0):
        """Runs it; returns the report."""
        result = atedm("bench", "serve", "--url", url, "--json", *args)
        self.assertEqual(status, result.returncode, result.stderr + result.stdout)
        self.assertEqual("", result.stderr)
        report = json.loads(result.stdout)
        self.check_sums(report)
        return report

    def check_sums(self, report):
        requests = report["requests"]
        self.assertEqual(requests["sent"], requests["ok"] + requests["failed"])
        self.assertEqual(requests["sent"], sum(requests["by_status"].values()) +
                         sum(requests["by_error"].values()))
        self.assertEqual(requests["ok"], sum(t["ok"] for t in report["tenths"]))
        self.assertEqual(requests["failed"], sum(t["failed"] for t in report["tenths"]))
        self.assertEqual(requests["sent"] + requests["unsent"],
                         sum(t["due"] for t in report["tenths"]))
        self.assertEqual(requests["sent"], sum(entry["sent"] for entry in report["mix"]))
        for name in ("total", "late", "queue", "service"):
            spread = report["latency_s"][name]
            if spread["max"] is not None:
                self.assertLessEqual(spread["p50"], spread["p95"])
                self.assertLessEqual(spread["p95"], spread["p99"])
                self.assertLessEqual(spread["p99"], spread["max"])


class AgainstADaemon(ServeTest):
    @classmethod
    def setUpClass(cls):
        cls.daemon = enter_class(cls, Daemon(queue_limit=1000))
        cls.url = f"http://{cls.daemon.host}:{cls.daemon.port}"

    def counts(self):
        m = self.daemon.metrics()

        def total(name, **labels):
            return sum(value for (n, have), value in m.items()
                       if n == name and set(labels.items()) <= set(have))

        return {"requests": total("atedm_requests_total", route="/generate", code="200"),
                "refused": total("atedm_requests_total", route="/generate", code="422"),
                "executed": total("atedm_flops_total", kind="executed"),
                "baseline": total("atedm_flops_total", kind="baseline"),
                "overhead": total("atedm_flops_total", kind="overhead"),
                "images": total("atedm_images_total"),
                "at-edm-b": total("atedm_images_total", pruning="at-edm-b"),
                "off": total("atedm_images_total", pruning="off"),
                "queue_s": m.get(series("atedm_stage_duration_seconds_sum", stage="queue"), 0)}

    def check_agreement(self, report, before):
        gone = {key: value - before[key] for key, value in self.counts().items()}
        self.assertEqual(gone["requests"], report["requests"]["ok"])
        self.assertEqual(gone["images"], report["images"])
        for kind in ("executed", "baseline", "overhead"):
            self.assertEqual(gone[kind], report["flops"][kind])
        self.assertAlmostEqual(report["flops"]["saved_ratio"],
                               1 - gone["executed"] / gone["baseline"])
        for preset in ("at-edm-b", "off"):
            self.assertEqual(gone[preset], report["pruning"].get(preset, 0))
        self.assertAlmostEqual(gone["queue_s"],
                               report["latency_s"]["queue"]["mean"] * report["requests"]["ok"], 4)

    def test_open_loop(self):
        before = self.counts()
        json_file, svg_file = self.folder / "report.json", self.folder / "run.svg"
        report = self.serve(self.url, "--rate", 20, "--requests", 30, "--size", "32x32", "--steps",
                            "2,3", "--pruning", "off,at-edm-b", "--seed", 3, "-o", json_file,
                            "--plot", svg_file)
        self.check_agreement(report, before)
        self.assertEqual(30, report["requests"]["sent"])
        self.assertEqual({"200": 30}, report["requests"]["by_status"])
        self.assertEqual(30, sum(report["pruning"].values()))
        self.assertEqual(4, len(report["mix"]))
        self.assertEqual(report, json.loads(json_file.read_text(encoding="utf-8")))
        self.assertAlmostEqual(report["throughput"]["requests_per_s"],
                               30 / report["throughput"]["seconds"], 6)
        # Total = late + queue + service for each request, so for the means too.
        mean = {name: spread["mean"] for name, spread in report["latency_s"].items()}
        self.assertAlmostEqual(mean["total"], mean["late"] + mean["queue"] + mean["service"], 6)
        self.check_picture(svg_file, 30)

    def check_picture(self, path, dots):
        root = xml.etree.ElementTree.parse(path).getroot()
        self.assertEqual(SVG + "svg", root.tag)
        self.assertEqual(dots, len(root.findall(f".//{SVG}circle")))
        texts = ["".join(t.itertext()) for t in root.iter(SVG + "text")]
        for text in ("Latency of each request", "latency, s", "requests", "s from the start"):
            self.assertIn(text, texts)
        for name in ("p50", "p95", "p99"):
            self.assertTrue(any(t.startswith(name + " ") for t in texts), name)
        numbers = [value for e in root.iter() for key, value in e.items() if key in ("x", "y", "cx")]
        self.assertTrue(all(-100 < float(n) < 1200 for n in numbers))

    def test_closed_loop(self):
        before = self.counts()
        report = self.serve(self.url, "--concurrency", 3, "--requests", 12, "--size", "32x32",
                            "--steps", 1)
        self.check_agreement(report, before)
        self.assertEqual(12, report["requests"]["ok"])
        self.assertEqual("closed", report["plan"]["loop"])
        self.assertLessEqual(report["batch"]["max_size"], 3)
        self.assertGreaterEqual(report["batch"]["max_size"], report["batch"]["mean_size"])

    def test_mix_with_refusals_and_pngs(self):
        before = self.counts()
        mix = self.folder / "mix.json"
        small = {"prompt": "a", "width": 32, "height": 32, "steps": 1}
        mix.write_text(json.dumps([
            {"weight": 3, "request": {**small, "num_images": 2, "pruning": {"ratio": 0.5}}},
            {"request": {**small, "response_format": "png"}},
            {"request": {**small, "steps": 0}}]), encoding="utf-8")
        report = self.serve(self.url, "--concurrency", 2, "--requests", 20, "--mix", mix)
        sent = [entry["sent"] for entry in report["mix"]]
        self.assertTrue(all(sent), "the seed gives some of each")
        self.assertEqual({"200": sent[0] + sent[1], "422": sent[2]},
                         report["requests"]["by_status"])
        self.assertEqual(2 * sent[0] + sent[1], report["images"])
        self.assertEqual({"custom": sent[0]}, report["pruning"], "a PNG tells nothing")
        after = self.counts()
        self.assertEqual(sent[2], after["refused"] - before["refused"])
        self.assertEqual(2 * sent[0] + sent[1], after["images"] - before["images"])
        self.serve(self.url, "--concurrency", 2, "--requests", 20, "--mix", mix, "--fail-on-errors",
                   status=1)

    def test_warm_up_is_not_counted(self):
        before = self.counts()["requests"]
        report = self.serve(self.url, "--rate", 15, "--duration", 1, "--warmup", 1, "--size",
                            "32x32", "--steps", 1)
        requests = report["requests"]
        self.assertGreater(requests["warm_up"], 0)
        self.assertEqual(self.counts()["requests"] - before, requests["ok"] + requests["warm_up"])
        self.assertAlmostEqual(1, report["tenths"][0]["from_s"])
        self.assertAlmostEqual(2, report["tenths"][-1]["to_s"])

    def test_table(self):
        out = self.run_ok("bench", "serve", "--url", self.url, "--concurrency", 1, "--requests", 2,
                          "--size", "32x32", "--steps", 1)
        for text in ("sent 2, ok 2, failed 0", "throughput", "p95", "service", "due within"):
            self.assertIn(text, out)


class Arrivals(ServeTest):
    LISTS = ("--size", "64x64,32x32", "--steps", "1,2,3", "--prompt", "a", "--prompt", "b")

    def sent_with(self, *args):
        with Stub() as stub:
            self.serve(stub.url, "--concurrency", 1, "--requests", 25, *self.LISTS, *args)
            return stub.bodies

    def test_same_seed_same_requests(self):
        first = self.sent_with("--seed", 5)
        self.assertEqual(first, self.sent_with("--seed", 5))
        self.assertNotEqual(first, self.sent_with("--seed", 6))
        self.assertEqual(25, len({body["seed"] for body in first}))
        self.assertGreater(len({(b["width"], b["steps"], b["prompt"]) for b in first}), 6)

    def test_open_loop_sends_the_same_ones(self):
        with Stub() as stub:
            self.serve(stub.url, "--rate", 200, "--requests", 25, *self.LISTS, "--seed", 5)
            first = sorted(json.dumps(body) for body in stub.bodies)
        self.assertEqual(first, sorted(json.dumps(b) for b in self.sent_with("--seed", 5)))

    def test_same_seed_same_times(self):
        ends = []
        with Stub() as stub:
            for seed in (5, 5, 6):
                report = self.serve(stub.url, "--rate", 100, "--requests", 20, "--seed", seed)
                ends.append(report["tenths"][-1]["to_s"])  # when the last one was due
        self.assertEqual(ends[0], ends[1])
        self.assertNotEqual(ends[0], ends[2])

    def test_a_slow_server_does_not_slow_them(self):
        with Stub() as stub:
            def answer(handler, number):
                if number == 39:  # nothing is answered before all have come
                    stub.release.set()
                stub.held(handler, number)

            stub.answer = answer
            report = self.serve(stub.url, "--rate", 100, "--requests", 40, "--timeout", PATIENCE)
            self.assertEqual(40, report["requests"]["ok"])
            self.assertEqual(40, stub.most_open)
            self.assertEqual(80, report["images"], "pictures were passed over")
            last_due = report["tenths"][-1]["to_s"]
            # The first one waited for as long as the arrivals took.
            self.assertGreater(report["latency_s"]["total"]["max"], 0.9 * last_due - 0.1)
        with Stub() as stub:
            report = self.serve(stub.url, "--rate", 100, "--requests", 40)
            self.assertEqual(last_due, report["tenths"][-1]["to_s"], "no sooner with a fast one")

    def test_what_is_over_the_limit_goes_out_late_and_says_so(self):
        with Stub() as stub:
            def answer(handler, _number):
                time.sleep(0.2)
                stub.ok(handler)

            stub.answer = answer
            report = self.serve(stub.url, "--rate", 200, "--requests", 10, "--max-open", 2)
            self.assertEqual(10, report["requests"]["ok"])
            self.assertLessEqual(stub.most_open, 2)
            self.assertGreaterEqual(report["arrivals"]["late"], 6)
            # Five rounds of 0.2 s; all were due within the first tenths of a second.
            self.assertGreater(report["latency_s"]["total"]["max"], 0.8)
            self.assertGreater(report["latency_s"]["late"]["max"], 0.6)
            self.assertGreater(report["latency_s"]["service"]["p50"], 0.19)

    def test_clients_of_a_closed_loop(self):
        with Stub() as stub:
            report = self.serve(stub.url, "--concurrency", 3, "--duration", 0.5)
            self.assertEqual(len(stub.bodies), report["requests"]["ok"])
            self.assertLessEqual(stub.most_open, 3)
            self.assertGreater(len(stub.bodies), 3)


class Failures(ServeTest):
    def outcome(self, answer, *args, status=1, requests=4):
        with Stub(answer) as stub:
            report = self.serve(stub.url, "--rate", 100, "--requests", requests, *args,
                                status=status)
            return report["requests"]

    def test_statuses(self):
        def answer(handler, number):
            Stub.send(handler, (503, 500, 503, 422)[number % 4], b'{"title": "no"}')

        requests = self.outcome(answer)
        self.assertEqual({"503": 2, "500": 1, "422": 1}, requests["by_status"])

    def test_no_answers(self):
        def garbage(handler, _number):
            handler.wfile.write(b"what?\r\n\r\n")
            handler.close_connection = True

        def hang_up(handler, _number):
            handler.close_connection = True

        def half(handler, _number):
            Stub.send(handler, 200, b'{"images": [', length=1000)
            handler.close_connection = True

        def not_ours(handler, _number):
            Stub.send(handler, 200, b'{"images": []}')

        def endless(handler, _number):
            Stub.send(handler, 200, b" " * 2_000_000)

        for answer, name in ((garbage, "not HTTP"), (hang_up, "connection broken"),
                             (half, "connection broken"), (not_ours, "not the API's answer"),
                             (endless, "not the API's answer")):
            with self.subTest(answer=answer.__name__):
                requests = self.outcome(answer)
                self.assertEqual({name: 4}, requests["by_error"])
                self.assertEqual({}, requests["by_status"])

    def test_timeout(self):
        with Stub() as stub:
            stub.answer = stub.held
            for seconds in (0.3, 0.0004):  # less than the milliseconds that libcurl counts in
                report = self.serve(stub.url, "--rate", 100, "--requests", 2, "--timeout", seconds, status=1)
                self.assertEqual({"timeout": 2}, report["requests"]["by_error"])

    def test_connection_refused(self):
        url = f"http://127.0.0.1:{free_port()}"
        plot = self.folder / "run.svg"
        report = self.serve(url, "--rate", 100, "--requests", 3, "--plot", plot, status=1)
        self.assertEqual({"no connection": 3}, report["requests"]["by_error"])
        self.assertIsNone(report["latency_s"]["total"]["p50"])
        self.assertIsNone(report["flops"]["saved_ratio"])
        texts = [t.text for t in xml.etree.ElementTree.parse(plot).iter(SVG + "text")]
        self.assertIn("No request succeeded.", texts)
        # A closed loop takes a rest each time, and does not spin.
        start = time.monotonic()
        self.serve(url, "--concurrency", 1, "--requests", 4, status=1)
        self.assertGreater(time.monotonic() - start, 0.3)

    def test_some_failed(self):
        def some(stub):
            def answer(handler, number):
                if number % 2:
                    Stub.send(handler, 503, b"{}")
                else:
                    stub.ok(handler)
            return answer

        for args, status in (((), 0), (("--fail-on-errors",), 1)):
            with Stub() as stub:
                stub.answer = some(stub)
                report = self.serve(stub.url, "--rate", 100, "--requests", 6, *args, status=status)
                self.assertEqual({"200": 3, "503": 3}, report["requests"]["by_status"])

    def test_files_that_cannot_be_written(self):
        with Stub() as stub:
            for option in ("--output", "--plot"):
                said = self.run_wrong(1, "bench", "serve", "--url", stub.url, "--rate", 100,
                                      "--requests", 1, option, self.folder / "no" / "file")
                self.assertIn("no/file", said)
            self.assertEqual([], stub.bodies, "it says so before the load")


class Keys(ServeTest):
    def headers(self, *args, **environment):
        with Stub() as stub:
            subprocess.run((ATEDM, "bench", "serve", "--url", stub.url + "/base/", "--rate", "100",
                            "--requests", "1", *args), env={**os.environ, **environment},
                           stdout=subprocess.DEVNULL, check=True)
            return stub.headers[0]

    def test_keys(self):
        self.assertEqual("Bearer k-1", self.headers("--api-key", "k-1")["Authorization"])
        self.assertEqual("Bearer k-2", self.headers(ATEDM_API_KEY="k-2")["Authorization"])
        self.assertEqual("Bearer k-1", self.headers("--api-key=k-1",
                                                    ATEDM_API_KEY="k-2")["Authorization"])
        headers = self.headers(ATEDM_API_KEY="")
        self.assertNotIn("Authorization", headers)
        self.assertEqual("/base/generate", headers["path"])
        self.assertEqual("application/json", headers["Content-Type"])

    def test_no_proxy(self):
        self.headers(http_proxy=f"http://127.0.0.1:{free_port()}")


class Interrupted(ServeTest):
    def start(self, stub, *args, **more):
        process = subprocess.Popen((ATEDM, "bench", "serve", "--url", stub.url, "--json",
                                    *map(str, args)), stdout=subprocess.PIPE, text=True, **more)
        self.addCleanup(process.kill)
        return process

    def finish(self, process, status):
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual(status, process.returncode)
        report = json.loads(out)
        self.check_sums(report)
        self.assertTrue(report["interrupted"])
        return report

    def test_what_is_open_is_waited_for(self):
        with Stub() as stub:
            stub.answer = stub.held
            process = self.start(stub, "--rate", 1000, "--duration", 1000, "--max-open", 4,
                                 "--grace", PATIENCE)
            wait_until(lambda: stub.open == 4, "four are open")
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
            stub.release.set()
            report = self.finish(process, 0)
            self.assertEqual({"200": 4}, report["requests"]["by_status"])
            self.assertGreater(report["requests"]["unsent"], 0, "others were due")
            self.assertEqual(4, len(stub.bodies), "nothing is sent any more")

    def test_no_longer_than_grace(self):
        with Stub() as stub:
            stub.answer = stub.held
            process = self.start(stub, "--concurrency", 2, "--duration", 1000, "--grace", 0.3)
            wait_until(lambda: stub.open == 2, "two are open")
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            report = self.finish(process, 1)
            self.assertGreaterEqual(time.monotonic() - start, 0.3)
            self.assertEqual({"given up on": 2}, report["requests"]["by_error"])

    def test_a_second_signal_ends_the_waiting(self):
        with Stub() as stub:
            stub.answer = stub.held
            process = self.start(stub, "--rate", 100, "--requests", 1, "--grace", 1000)
            wait_until(lambda: stub.open == 1, "it is open")
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
            self.assertIsNone(process.poll())
            process.send_signal(signal.SIGINT)
            report = self.finish(process, 1)
            self.assertEqual({"given up on": 1}, report["requests"]["by_error"])

    def test_progress_on_a_terminal(self):
        parent, child = pty.openpty()
        self.addCleanup(os.close, parent)
        with Stub() as stub:
            stub.answer = stub.held
            process = self.start(stub, "--rate", 1000, "--duration", 1000, "--max-open", 3, "--grace",
                                 0, stderr=child)
            os.close(child)
            shown = ""

            def look():
                nonlocal shown
                shown += os.read(parent, 4096).decode()
                return "sent 3, done 0, errors 0, open 3, " in shown and "s left" in shown

            wait_until(look, "the bar says what there is")
            process.send_signal(signal.SIGINT)
            self.finish(process, 1)
            try:
                while more := os.read(parent, 4096):
                    shown += more.decode()
            except OSError:
                pass  # how Linux says that the other side is closed
            self.assertTrue(shown.endswith("\r\x1b[K"), "taken away")


class Edges(CommandTest):
    """Other ways to a daemon than a port of this machine."""

    def load(self, *args):
        report = json.loads(self.run_ok("bench", "serve", "--concurrency", 2, "--requests", 4, "--size", "32x32", "--steps", 1,
                                        "--json", *args))
        self.assertEqual((report["requests"]["sent"], report["requests"]["ok"]), (4, 4))

    def test_a_unix_socket_and_tls(self):
        authority = Authority(self.folder)
        cert, key, path = (self.folder / name for name in ("cert.pem", "key.pem", "s"))
        authority.sign(cert, key)
        with Daemon(listen=f"127.0.0.1:0,https://127.0.0.1:0,unix:{path}", tls_cert=cert, tls_key=key) as d:
            url = d.process.stdout.readline().removeprefix("atedmd listening on ").strip()
            self.load("--unix-socket", path, "--url", "http://localhost")
            self.load("--ca-file", authority.file, "--url", url)
            self.assertEqual(d.gauge("atedm_requests_total", route="/generate", code="200"), 8)
            # An authority that nobody knows.
            other = Authority(self.folder, "other").file
            for flags in (("--url", url), ("--url", url, "--ca-file", other), ("--url", url, "--ca-file", key),
                          ("--unix-socket", self.folder / "none")):
                result = atedm("bench", "serve", "--concurrency", 1, "--requests", 1, "--json", *flags)
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertEqual(json.loads(result.stdout)["requests"]["by_error"], {"no connection": 1})


class Usage(CommandTest):
    def test_wrong_options(self):
        mix = self.folder / "mix.json"
        mix.write_text('[{"request": 1}]', encoding="utf-8")
        for args, said in (((), "--rate and --concurrency"), (("--rate", 0), "--rate"),
                           (("--rate", 1, "--url", "x"), "--url"),
                           (("--rate", 1, "--size", "64x"), "--size"),
                           (("--rate", 1, "--pruning", '{"ratio": 2}'), "ratio"),
                           (("--rate", 1, "--mix", mix), "mix.json: entry 0"),
                           (("--rate", 1, "--mix", mix, "--steps", 2), "exclude"),
                           (("--rate", 1, "--api-key", "a b"), "--api-key"),
                           (("--rate", 1, "--unix-socket", ""), "--unix-socket"),
                           (("--rate", 1, "--unix-socket", "x" * 108), "1..107 bytes"),
                           (("--rate", 1, "--ca-file", "/nonexistent"), "--ca-file")):
            with self.subTest(args=args):
                self.assertIn(said, self.run_wrong(2, "bench", "serve", *args))

    def test_help_has_every_option(self):
        folder = pathlib.Path(__file__).resolve().parents[2] / "cli"
        sources = "".join((folder / name).read_text(encoding="utf-8") for name in ("cli.h", "endpoint.h", "load_options.c"))
        names = re.findall(r'\{\s*\\?\s*"([a-z-]+)", (?:no|required)_argument', sources)
        self.assertGreater(len(names), 20)
        text = self.run_ok("bench", "serve", "--help")
        for name in names:
            self.assertIn("--" + name, text)


if __name__ == "__main__":
    unittest.main()
