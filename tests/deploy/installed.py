#!/usr/bin/env python3
"""Tests that `meson install` installs all files, and that the programs run from where they are installed."""
import http.client
import json
import os
import re
import subprocess
import tempfile
import time
import unittest

from install import Installation, find

FILES = ("atedmd", "atedm", "atedm-worker", "atedmd.json", "atedmd.service", "nvidia.conf", "atedm.1", "atedmd.8",
         "atedmd.json.5")
PATIENCE = 60


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.installation = Installation()
        cls.root = cls.installation.__enter__()
        cls.addClassCleanup(cls.installation.__exit__)

    def test_files(self):
        for name in FILES:
            self.assertGreater(find(self.root, name).stat().st_size, 0)
        self.assertEqual(find(self.root, "atedmd").parent.name, "sbin")
        self.assertEqual(find(self.root, "atedm").parent.name, "bin")
        self.assertEqual(find(self.root, "atedm-worker").parent.parts[-2:], ("lib", "atedmd"))
        # No file has a placeholder left.
        for path in self.root.rglob("*"):
            if path.suffix in (".service", ".conf", ".json") and "models" not in path.parts:
                self.assertNotRegex(path.read_text("ascii"), r"@\w+@", path)

    def test_paths_of_the_unit(self):
        unit = find(self.root, "atedmd.service").read_text("ascii")
        program, config = re.search(r"(?m)^ExecStart=(\S+) --config (\S+)$", unit).groups()
        self.assertTrue((self.root / program[1:]).is_file())
        self.assertTrue((self.root / config[1:]).is_file())

    def test_it_runs(self):
        """The daemon runs with the installed configuration, except for the model's path, which has the prefix, and the port."""
        config = find(self.root, "atedmd.json")
        model = json.loads(config.read_text("ascii"))["model"]
        self.assertTrue((self.root / model[1:] / "model_index.json").is_file())
        with tempfile.TemporaryDirectory(prefix="atedmd-") as state, subprocess.Popen(
                [find(self.root, "atedmd"), "--config", config, "--listen", "127.0.0.1:0",
                 "--model", self.root / model[1:]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={"PATH": os.environ["PATH"], "STATE_DIRECTORY": state}) as daemon:
            try:
                port = int(daemon.stdout.readline().rsplit(":", 1)[1])
                deadline = time.monotonic() + PATIENCE
                while self.status(port) != 200:
                    self.assertLess(time.monotonic(), deadline, "no worker")
                    time.sleep(0.1)
            finally:
                daemon.terminate()
        self.assertEqual(daemon.returncode, 0)

    @staticmethod
    def status(port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
        connection.close()
        return status


if __name__ == "__main__":
    unittest.main(verbosity=2)
