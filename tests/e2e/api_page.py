#!/usr/bin/env python3
"""The page for a browser: served to everybody, of one piece, and held against the interface that it uses. Whether it looks right, a
browser has to tell."""
import json
import re
import shutil
import subprocess
import tempfile
import unittest

from daemon import Daemon, enter_class
from key_file import KeyFile, entry, make_key


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.d = enter_class(cls, Daemon(wait=False))
        cls.answer = cls.d.get("/")
        cls.text = cls.answer.body.decode("utf-8")
        cls.script = re.search(r"<script>(.*)</script>", cls.text, re.S).group(1)

    def test_headers(self):
        self.assertEqual(self.answer.status, 200)
        self.assertEqual(self.answer.headers["Content-Type"], "text/html; charset=utf-8")
        self.assertEqual(self.answer.headers["Content-Security-Policy"],
                         "default-src 'self' 'unsafe-inline' data: blob:; frame-ancestors 'none'")
        self.assertEqual(self.d.request("HEAD", "/").status, 200)
        self.assertEqual(self.d.request("POST", "/", b"{}", {"Content-Type": "application/json"}).status, 405)

    def test_nothing_from_elsewhere(self):
        self.assertNotRegex(self.text, r"https?:|//[a-z]|innerHTML")

    def test_paths_and_fields_are_the_interface_s(self):
        document = json.loads(self.d.get("/openapi.json").body)
        paths = set(re.findall(r"(?:call|post)\('(/[^']*)'", self.script))
        self.assertEqual(paths, {"/generate", "/v1/estimate", "/v1/models", "/v1/samplers", "/v1/schedules"})
        self.assertLessEqual(paths, set(document["paths"]))
        known = set(document["components"]["schemas"]["GenerateRequest"]["properties"])
        named = set(re.findall(r'name="(\w+)"', self.text)) - {"beside", "key", "viewport"}
        self.assertEqual(named, {"prompt", "negative_prompt", "pruning", "sampler", "steps", "guidance_scale", "width", "height", "seed"})
        self.assertLessEqual(named, known)

    def test_open_where_keys_are_asked_for(self):
        with Daemon(api_keys=KeyFile(self, entry("a", make_key()))) as d:
            self.assertEqual(d.get("/").body, self.answer.body)
            self.assertEqual(d.get("/v1/models").status, 401)

    @unittest.skipUnless(shutil.which("node"), "no node")
    def test_the_script_is_one(self):
        with tempfile.NamedTemporaryFile("w", suffix=".mjs", encoding="utf-8") as file:
            for text, status in ((self.script, 0), (self.script + "}", 1)):
                file.seek(0)
                file.write(text)
                file.flush()
                result = subprocess.run(["node", "--check", file.name], capture_output=True, text=True, check=False)
                self.assertEqual(result.returncode, status, result.stderr)


if __name__ == "__main__":
    unittest.main()
