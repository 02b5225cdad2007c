#!/usr/bin/env python3
"""api.md is true: every curl line in it gives the status written behind it, and every route,
metric, field, option and kind of problem that the daemon has is in it."""
import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from daemon import LONG, PATIENCE, SMALL, Daemon, enter_class, read_png, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "api.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^(curl .*?)[ ]+# (\d{3})$", re.MULTILINE | re.DOTALL)


def examples():
    """(command, status) of every example; a command may span lines."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        commands = COMMAND.findall(block)
        assert len(commands) == len(re.findall(r"^curl ", block, re.MULTILINE)), \
            f"a curl line without a status:\n{block}"
        found += commands
    return found


def quoted_in(path, pattern):
    found = re.findall(pattern, (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) >= 5, f"{path}: {found}"
    return found


class Examples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = enter_class(cls, Daemon())

    def test_every_curl_line(self):
        self.daemon.generate()  # the 504 needs a measured rate
        self.assertGreater(len(examples()), 15)
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / ".curlrc").write_text('write-out = "\\n%{http_code}"\n')
            for command, status in examples():
                self.assertIn("http://127.0.0.1:8080/", command)
                here = command.replace("127.0.0.1:8080", f"127.0.0.1:{self.daemon.port}")
                result = subprocess.run(["sh", "-ec", here], cwd=folder, capture_output=True,
                                        env={"PATH": os.environ["PATH"], "CURL_HOME": folder},
                                        timeout=PATIENCE, check=False)
                self.assertEqual(result.returncode, 0, command)
                self.assertEqual(result.stdout.splitlines()[-1], status.encode(), command)
            read_png((pathlib.Path(folder) / "circle.png").read_bytes())

    def test_json_blocks_are_json_and_of_the_shape_that_is_answered(self):
        blocks = [json.loads(block) for block in
                  re.findall(r"^```json\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)]
        answer, job, problem = blocks
        real = self.daemon.generate().json()
        self.assertEqual(shape(answer), shape(real))
        path = self.daemon.post("/generate", LONG, {"Prefer": "respond-async"}).headers["Location"]
        wait_until(lambda: self.daemon.get(path).json()["progress"].get("images_per_s"), "progress")
        self.assertEqual(shape(job), shape(self.daemon.get(path).json()))
        self.daemon.request("DELETE", path)
        real = self.daemon.generate({"steps": 0, "pruning": {"ratio": 1.5}}).json()
        self.assertEqual({**problem, "id": ""}, {**real, "id": ""})

    def test_everything_is_there(self):
        # All series of a daemon that has done something.
        self.daemon.generate()
        metrics = re.findall(r"^# TYPE (\S+)", self.daemon.get("/metrics").body.decode(), re.M)
        self.assertGreater(len(metrics), 20)
        wanted = metrics + quoted_in("server/routes.c", r'\.path = "(/[^"]*)"')
        wanted += quoted_in("server/generate_json.c", r'^    \{\.name = "(\w+)", (?:\.read|INTEGER)')
        wanted += quoted_in("server/problem.c", r'\{\d{3}, "([a-z-]+)"')
        wanted += list(json.loads((ROOT / "config/atedmd.json").read_text(encoding="utf-8")))
        wanted += list(self.daemon.get("/metrics/flops").json())
        wanted += list(self.daemon.get("/metrics/latency").json())
        wanted += list(self.daemon.get("/v1/models").json()["models"][0])
        wanted += list(self.daemon.post("/v1/estimate", SMALL).json())
        wanted += [p["preset"] for p in self.daemon.get("/v1/schedules").json()["presets"]]
        missing = [name for name in wanted if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", TEXT)]
        self.assertEqual(missing, [])

    def test_defaults(self):
        options = json.loads((ROOT / "config/atedmd.json").read_text(encoding="utf-8"))
        for name, value in options.items():
            row = re.search(rf"^\| `{name}` \| `?([^|`]*)`? \|", TEXT, re.MULTILINE)
            self.assertIsNotNone(row, name)
            self.assertEqual(row.group(1).strip(), str(value).lower() if isinstance(value, bool) else str(value), name)


def shape(value):
    """Keys and kinds, without values; a list is as its first."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return "number" if isinstance(value, (int, float)) else type(value).__name__


if __name__ == "__main__":
    unittest.main()
