#!/usr/bin/env python3
"""Nothing that a client sends ends the daemon or disturbs another request: after every bad input
the documented answer, and the next good request works."""
import json
import time
import unittest

from daemon import PATIENCE, SMALL, Daemon, enter_class, read_png, read_response

JSON = {"Content-Type": "application/json"}


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = enter_class(cls, Daemon(max_images=4, max_area=65536))

    def tearDown(self):
        answer = self.daemon.generate({"steps": 1}, headers={"Accept": "image/png"})
        self.assertEqual(answer.status, 200)
        self.assertEqual(read_png(answer.body)[:2], (32, 32))

    def check_problem(self, answer, status, kind=None):
        self.assertEqual(answer.status, status, answer.body[:300])
        self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
        problem = answer.json()
        self.assertEqual(problem["status"], status)
        self.assertEqual(problem["id"], answer.headers["X-Request-Id"])
        self.assertTrue(problem["title"] and problem["detail"])
        if kind:
            self.assertEqual(problem["type"], "urn:atedm:problem:" + kind)
        return problem

    def check_field(self, fields, pointer):
        """Exactly this field is named; so it is in an estimate."""
        for path in ("/generate", "/v1/estimate"):
            answer = self.daemon.post(path, {**SMALL, **fields})
            self.check_problem(answer, 422, "invalid")
            self.assertEqual(answer.pointers(), [pointer], fields)

    def test_not_json(self):
        bodies = [b"", b" ", b"{", b"}", b"prompt=a", b"{'prompt': 'a'}", b'{"prompt": "a",}',
                  b'{"prompt": "a"} x', b'{"prompt": nan}', b'{"prompt": "a\n"}', b"\0",
                  b'{"prompt": "a\\u0000"}', b'{"steps": 1e999}', b'{"a": 01}', b"\xef\xbb\xbf{}",
                  b'{"prompt": "\\ud800"}', bytes(range(256))]
        for body in bodies:
            self.check_problem(self.daemon.post("/generate", body), 400, "not-json")

    def test_not_utf8(self):
        for text in (b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80"):
            problem = self.check_problem(
                self.daemon.post("/generate", b'{"prompt": "' + text + b'"}'), 400, "not-json")
            self.assertIn("UTF-8 at byte 12", problem["detail"])

    def test_utf16(self):
        for encoding in ("utf-16", "utf-32"):
            body = json.dumps(SMALL).encode(encoding)
            self.check_problem(self.daemon.post("/generate", body), 400)

    def test_duplicate_keys(self):
        problem = self.check_problem(
            self.daemon.post("/generate", b'{"prompt": "a", "prompt": "b"}'), 400)
        self.assertIn("duplicate", problem["detail"])
        self.check_problem(self.daemon.post(
            "/generate", b'{"prompt": "a", "pruning": {"ratio": 0.1, "ratio": 0.2}}'), 400)

    def test_deep_nesting(self):
        for depth in (17, 2048, 500000):
            for left, right in ((b"[", b"]"), (b'{"a":', b"}")):
                if depth * len(left) > 1000000:
                    continue
                inner = b"1" if left == b'{"a":' else b""
                body = left * depth + inner + right * depth
                problem = self.check_problem(self.daemon.post("/generate", body[:1048576]), 400)
                self.assertIn("nested deeper than 16", problem["detail"])

    def test_not_an_object(self):
        for body in (b"[]", b"1", b'"prompt"', b"null", b"true", b"[" * 16 + b"]" * 16):
            answer = self.daemon.post("/generate", body)
            self.check_problem(answer, 422)
            self.assertEqual(answer.pointers(), [""])

    def test_body_of_100_megabytes(self):
        chunk = b" " * (1 << 20)
        for headers in (b"Content-Length: %d\r\n" % (100 << 20), b"Transfer-Encoding: chunked\r\n"):
            with self.daemon.connect() as s:
                s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\n"
                          b"Content-Type: application/json\r\n" + headers + b"\r\n")
                framed = b"%x\r\n%b\r\n" % (len(chunk), chunk) if b"chunked" in headers else chunk
                for _ in range(100):
                    s.sendall(framed)
                if b"chunked" in headers:
                    s.sendall(b"0\r\n\r\n")
                self.check_problem(read_response(s), 413, "too-large")

    def test_memory_stays_bounded(self):
        before = self.daemon.gauge("process_resident_memory_bytes")
        self.test_body_of_100_megabytes()
        self.assertLess(self.daemon.gauge("process_resident_memory_bytes") - before, 32 << 20)

    def test_too_large_a_body_is_refused_before_it_is_sent(self):
        for length in (1048577, 1 << 40):
            with self.daemon.connect() as s:
                s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                          b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % length)
                self.check_problem(read_response(s), 413)

    def test_largest_body(self):
        body = json.dumps(SMALL).encode()
        answer = self.daemon.post("/generate", body + b" " * (1048576 - len(body)))
        self.assertEqual(answer.status, 200)
        self.check_problem(self.daemon.post("/generate", body + b" " * (1048577 - len(body))), 413)

    def test_wrong_type(self):
        body = json.dumps(SMALL).encode()
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", "",
                     "application/json; charset=latin-1", "application/json; charset=utf-80",
                     "application/json; x=y; charset=latin-1", 'application/json; charset="utf-8', "multipart/form-data; boundary=x"):
            answer = self.daemon.request("POST", "/generate", body, {"Content-Type": kind})
            self.check_problem(answer, 415, "media-type")
        self.check_problem(self.daemon.request("POST", "/generate", body), 415)
        for kind in ("application/json", "Application/JSON ; charset=UTF-8",
                     'application/json;charset="utf-8"', "application/json; x=y;charset=utf-8 ; z", "application/json;"):
            answer = self.daemon.request("POST", "/generate", body, {"Content-Type": kind})
            self.assertEqual(answer.status, 200, kind)

    def test_paths_and_methods(self):
        for path in ("//", "/generate/", "/v1", "/v1/../generate", "/GENERATE", "/" + "a" * 5000,
                     "/%00", "/healthz%00", "/healthz%00x", "/%ff", "/v1/jobs", "/openapi.yaml", "http://x/x", "ftp://x/healthz"):
            self.check_problem(self.daemon.get(path), 404, "not-found")
        for query in ("state=done%00", "limit=5%00x", "before=5%00"):
            self.check_problem(self.daemon.get("/jobs?" + query), 400, "query")
        for path in ("http://x", "http://x/healthz", "HTTPS://[::1]:1/healthz?x", "/%68ealthz", "/jobs?%6Cimit=%35"):
            self.assertEqual(self.daemon.get(path).status, 200, path)
        for method, path, allow in (("GET", "/generate", "POST"), ("HEAD", "/generate", "POST"),
                                    ("DELETE", "/v1/generate", "POST"),
                                    ("POST", "/healthz", "GET, HEAD"),
                                    ("PUT", "/metrics", "GET, HEAD"),
                                    ("BREW", "/healthz", "GET, HEAD")):
            answer = self.daemon.request(method, path, headers=JSON)
            self.assertEqual(answer.headers["Allow"], allow)
            if method == "HEAD":
                self.assertEqual((answer.status, answer.body), (405, b""))
            else:
                self.check_problem(answer, 405, "method")
        # A body that nobody asked for does not disturb the connection.
        connection = self.daemon.connection()
        for _ in range(2):
            answer = self.daemon.request("POST", "/nowhere", b"x" * 100000, connection=connection)
            self.check_problem(answer, 404)
        connection.close()

    def test_head(self):
        for path in self.daemon.paths():
            answer = self.daemon.request("HEAD", path)
            self.assertEqual((answer.status, answer.body), (200, b""), path)
            self.assertGreater(int(answer.headers["Content-Length"]), 2)

    def test_every_field(self):
        huge = 10 ** 30
        wrong = {
            "prompt": ["", 1, None, [], {}, True, "x" * 8193, "\N{CAT FACE}" * 2049],
            "negative_prompt": [1, [], "x" * 8193],
            "width": [0, -8, 12, 16392, 2 ** 31, 2 ** 63 - 1, huge, -huge, 32.0, "32", None, True],
            "height": [0, -8, 12, 16392, 2 ** 31, huge, 1e300, "32", None, []],
            "steps": [0, -1, 151, 2 ** 40, huge, 2.5, "2", None],
            "guidance_scale": [-0.1, 30.01, huge, "7", None, True],
            "seed": [-1, 2 ** 63, huge, 1.5, "1", True],
            "num_images": [0, -1, 5, 2 ** 33, huge, 1.0, "1", None],
            "sampler": ["", "ddim", "Euler", "x" * 1000, 1, None, "\N{CAT FACE}"],
            "pruning": ["", "at-edm-x", 1, None, [], True],
            "response_format": ["", "uri", "jpeg", 1, None],
            "deadline_s": [0, -1, 86401, huge, "1", True],
            "priority": [-11, 11, huge, 0.5, "0", None],
        }
        for name, values in wrong.items():
            for value in values:
                self.check_field({name: value}, "/" + name)
        self.check_field({"width": 512, "height": 512}, "/width")
        self.check_field({"response_format": "png", "num_images": 2}, "/response_format")
        self.check_field({"seed": 2 ** 63 - 1, "num_images": 2}, "/seed")
        self.check_field({"unknown": 1}, "/unknown")
        self.check_field({"a/b~c": 1}, "/a~1b~0c")

    def test_every_field_of_pruning(self):
        wrong = {
            "preset": ["x", 1, None],
            "ratio": [-0.1, 1, 1.5, "0.5", None, 10 ** 30],
            "flops_budget": [0, -1, 1.1, "1", 0.0001],
            "schedule": ["x", 1, None],
            "tau": [-0.1, 1.1, "x"],
            "phases": [1, [], {}],
            "skip_levels": [1, [-1], [99], ["1"], [0.5]],
            "prune_after": [1, [], [-1], [99], [0.5]],
            "score": [1, [], "x"],
            "selection": ["x", 1, None],
            "recovery": ["x", 1, None],
            "copy": ["x", 1, None],
            "proportional_attention": ["true", 1, None],
            "masks": ["x", 1, None],
            "unknown": [1],
        }
        for name, values in wrong.items():
            for value in values:
                answer = self.daemon.post("/generate", {**SMALL, "pruning": {name: value}})
                self.check_problem(answer, 422)
                self.assertTrue(all(p.startswith("/pruning/" + name) for p in answer.pointers()),
                                f"{name} {value}: {answer.body}")
        for name, value in (("map", "x"), ("heads", "x"), ("max_iterations", 0),
                            ("max_iterations", 65), ("tolerance", -1), ("interval", 0), ("interval", 1001), ("unknown", 1)):
            self.check_field({"pruning": {"score": {name: value}}}, "/pruning/score/" + name)
        for name, value in (("heads", "rms"), ("max_iterations", 8), ("tolerance", 0), ("interval", 1)):
            self.check_field({"pruning": {"score": {"map": "random", name: value}}},
                             "/pruning/score/" + name)
        self.check_field({"pruning": {"prune_after": [0, 1], "score": {"interval": 2}}}, "/pruning/score/interval")
        self.check_field({"pruning": {"phases": [{"until": 1, "ratio": 0.5, "skip": ["up.9.9"]}]}},
                         "/pruning/phases")

    def test_all_at_once(self):
        answer = self.daemon.post("/generate", {
            "width": 1, "height": 2, "steps": 0, "guidance_scale": -1, "seed": -1, "num_images": 0,
            "sampler": "x", "pruning": "x", "response_format": "x", "deadline_s": -1,
            "priority": 99, "x": 1})
        self.check_problem(answer, 422)
        self.assertEqual(answer.pointers(), sorted(
            "/" + name for name in ("prompt", "width", "height", "steps", "guidance_scale", "seed",
                                    "num_images", "sampler", "pruning", "response_format",
                                    "deadline_s", "priority", "x")))

    def test_a_plan_that_cannot_be_beside_other_wrong_fields(self):
        for fields in ({"steps": 0}, {"steps": "4"}, {"width": 1}, {"height": 1, "seed": -1}, {}):
            for pruning in ({"flops_budget": 0.01}, {"phases": [{"until": 1, "ratio": 0.5, "skip": ["up.9.9"]}]}):
                answer = self.daemon.generate({**fields, "pruning": pruning})
                self.check_problem(answer, 422)
                field, = pruning
                self.assertEqual(answer.pointers(), sorted([f"/pruning/{field}", *("/" + name for name in fields)]))
        self.check_field({"steps": 0, "pruning": {"flops_budget": 0.99}}, "/steps")

    def test_a_default_that_cannot_be_is_not_blamed_on_a_field(self):
        with Daemon(default_pruning='{"flops_budget": 0.85}') as d:
            self.assertEqual(d.generate({"width": 128, "height": 128}).status, 200)
            for wrong, pointers in (({}, [""]), ({"steps": 0}, ["", "/steps"])):
                answer = d.generate({"width": 64, "height": 64, **wrong})
                self.assertEqual((answer.status, answer.pointers()), (422, pointers))
                detail, = [error["detail"] for error in answer.json()["errors"] if error["pointer"] == ""]
                self.assertIn("names no pruning, and the default does not fit: flops_budget 0.85 is below the floor", detail)
            self.assertEqual(d.generate({"width": 64, "height": 64, "pruning": "at-edm"}).status, 200)

    def test_no_character_0(self):
        answer = self.daemon.post("/generate", b'{"prompt": "a\\u0000"}')
        self.assertRegex(answer.json()["detail"], r"^\\u0000 is not allowed \(line 1, column \d+\)$")

    def test_which_samplers_there_are(self):
        names = ", ".join(f'"{s["name"]}"' for s in self.daemon.get("/v1/samplers").json()["samplers"])
        for sampler, quoted in (("heun", '"heun"'), ("e" * 100, f'"{"e" * 40}..."')):
            error, = self.daemon.generate({"sampler": sampler}).json()["errors"]
            self.assertEqual(error["detail"], f"{quoted} is not one of {names}")

    def test_numbers_are_told_as_they_came(self):
        for field, value, detail in (
                ("steps", 4.0, "is 4.0, not an integer within 1..150"),
                ("steps", 4.5, "is 4.5, not an integer within 1..150"),
                ("num_images", 2 ** 40, "is 1099511627776, not an integer within 1..4"),
                ("priority", -0.5, "is -0.5, not an integer within -10..10"),
                ("width", 32.0, "is 32.0, not an integer within 8..16384"),
                ("seed", 1.0, "is 1.0, not an integer within 0..9223372036854775807"),
                ("deadline_s", 86400.0001, "is 86400.0001, not over 0 and up to 86400"),
                ("guidance_scale", 30.0000001, "is 30.0000001, not within 0..30"),
                ("pruning", {"ratio": 0.9999001}, "is 0.9999001, not within 0..0.9999")):
            error, = self.daemon.generate({field: value}).json()["errors"]
            self.assertEqual(error["detail"], detail)

    def test_thousands_of_unknown_fields(self):
        answer = self.daemon.post("/generate", {**SMALL, **{f"x{i}": i for i in range(5000)}})
        problem = self.check_problem(answer, 422)
        self.assertIn("5000 fields", problem["detail"])
        self.assertEqual(len(problem["errors"]), 32)
        self.check_problem(self.daemon.post("/generate", {**SMALL, "x" * 500000: 1}), 422)

    def test_the_most_that_is_thrown_away(self):
        most = 256 << 20  # ATEDM_HTTP_DISCARD_MAX
        head = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        with self.daemon.connect() as s:  # all of it is read before the answer
            s.sendall(head + b"Content-Length: %d\r\n\r\n" % most)
            for _ in range(255):
                s.sendall(b" " * (1 << 20))
            s.setblocking(False)
            self.assertRaises(BlockingIOError, s.recv, 1)
            s.settimeout(PATIENCE)
            s.sendall(b" " * (1 << 20))
            self.check_problem(read_response(s), 413, "too-large")
        with self.daemon.connect() as s:  # one more, and nothing is waited for
            s.sendall(head + b"Content-Length: %d\r\n\r\n" % (most + 1))
            self.check_problem(read_response(s), 413, "too-large")
        with self.daemon.connect() as s:  # that it would be more nobody has said
            chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
            s.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
            with self.assertRaises(ConnectionError):
                for _ in range(300):
                    s.sendall(chunk)
                if not s.recv(1):
                    raise ConnectionError("closed without an answer")

    def all_of(self, data):
        """What comes until the daemon closes the connection."""
        with self.daemon.connect() as s:
            s.sendall(data)
            answer = b""
            while more := s.recv(65536):
                answer += more
        return answer

    def test_not_http(self):
        post = b"POST /generate HTTP/1.1\r\nHost: x\r\n"
        for status, data in (
                (None, b"hello\r\n\r\n"), (505, b"GET / HTTP/9.9\r\n\r\n"),
                (431, b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: %b\r\n" % (i, b"y" * 100) for i in range(1000)) + b"\r\n"),
                (414, b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n"),
                (400, post + b"Content-Length: -5\r\n\r\n"), (413, post + b"Content-Length: 99999999999999999999\r\n\r\n"),
                (400, post + b"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\n")):
            with self.subTest(data[:80]):
                line = self.all_of(data).split(b"\r\n")[0]
                if status:
                    self.assertRegex(line, rb"^HTTP/1\.1 %d " % status)
                else:
                    self.assertEqual(line, b"")

    def test_what_could_be_read_in_two_ways(self):
        """Refused at once, with the connection, so that nothing behind it counts as another request."""
        body = json.dumps(SMALL).encode()
        head = b"POST /v1/estimate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        length, longer = (b"Content-Length: %d\r\n" % n for n in (len(body), len(body) + 20))
        chunked, chunks = b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        for data in (head + length + longer + b"\r\n" + body, head + longer + length + b"\r\n" + body,
                     head + length + length + b"\r\n" + body, head + length + chunked + b"\r\n" + chunks,
                     head + chunked + b"Content-Length: 4\r\n\r\n" + chunks, head + chunked + chunked + b"\r\n" + chunks,
                     head + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks, head + b"Transfer-Encoding: x\r\n\r\n" + chunks,
                     head + length.replace(b":", b" :") + b"\r\n" + body, head + length.replace(b":", b"\t:") + b"\r\n" + body,
                     head.replace(b"1.1", b"1.0") + chunked + b"\r\n" + chunks, b"GET /healthz HTTP/1.1\r\n\r\n",
                     b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"):
            with self.subTest(data), self.daemon.connect() as s:
                s.sendall(data + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = read_response(s)
                self.assertEqual(self.check_problem(answer, 400, "query")["detail"],
                                 "a request has one Host, one Content-Length or Transfer-Encoding: chunked, and no space before a colon")
                self.assertEqual(answer.headers["Connection"], "close")
                try:
                    self.assertEqual(s.recv(1), b"")
                except ConnectionResetError:
                    pass
        for data in (head + length + b"\r\n" + body, head + chunked.lower() + b"\r\n" + chunks,
                     b"GET /healthz HTTP/1.0\r\n\r\n"):
            with self.subTest(data), self.daemon.connect() as s:
                s.sendall(data)
                self.assertEqual(read_response(s).status, 200)

    def test_what_never_has_an_end_of_a_line(self):
        """Nobody knows yet that it is not HTTP: closed after the connection's timeout, without a word."""
        with Daemon(connection_timeout_s=1) as d:
            sockets = [d.connect() for _ in range(3)]
            start = time.monotonic()
            for s, data in zip(sockets, (b"\r\n\r\n", b"\x16\x03\x01\x02\x00" * 50, b"\0" * 1000)):
                s.sendall(data)
            for s in sockets:
                with s:
                    self.assertEqual(s.recv(1), b"")
            self.assertGreaterEqual(time.monotonic() - start, 0.9)
            self.assertEqual(d.generate({"steps": 1}).status, 200)


if __name__ == "__main__":
    unittest.main()
