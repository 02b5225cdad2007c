#!/usr/bin/env python3
"""Tests the systemd unit, without and with the drop-in for NVIDIA GPUs: systemd has no complaint, and the service is exposed
little."""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from install import Installation, find

# The highest exposure that `systemd-analyze security` may report, from 0 (nothing) to 10 (everything):
# what deploy/README.md promises.
EXPOSURE = 2.0


def analyze(*words):
    result = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


class Units(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.installation = Installation()
        cls.root = cls.installation.__enter__()
        cls.addClassCleanup(cls.installation.__exit__)
        cls.folder = tempfile.TemporaryDirectory(prefix="atedmd-")
        cls.addClassCleanup(cls.folder.cleanup)
        # systemd-analyze requires that the program exists, so this unit names the one that has just been installed.
        text = find(cls.root, "atedmd.service").read_text(encoding="ascii")
        daemon = find(cls.root, "atedmd")
        cls.unit = pathlib.Path(cls.folder.name, "atedmd.service")
        cls.unit.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={daemon}", text, flags=re.MULTILINE), "ascii")

    def check(self):
        status, text = analyze("--man=no", "verify", str(self.unit))
        text = "\n".join(line for line in text.splitlines() if str(self.unit.parent) in line or "atedmd" in line)
        self.assertEqual((status, text), (0, ""))
        status, text = analyze("security", "--offline=yes", f"--threshold={int(EXPOSURE * 10)}", "--no-pager",
                               str(self.unit))
        self.assertEqual(status, 0, text)
        exposure = float(re.search(r"Overall exposure level for atedmd\.service: ([0-9.]+)", text).group(1))
        self.assertLessEqual(exposure, EXPOSURE)
        return exposure

    def test_1_for_the_cpu(self):
        type(self).exposure = self.check()
        print(f"exposure {self.exposure}")

    def test_2_for_gpus(self):
        folder = self.unit.with_suffix(".service.d")
        folder.mkdir()
        shutil.copy(find(self.root, "nvidia.conf"), folder)
        exposure = self.check()
        print(f"exposure {exposure} with GPUs")
        self.assertGreater(exposure, self.exposure)  # so systemd has read the drop-in

    def test_3_a_looser_unit_is_found(self):
        self.unit.with_suffix(".service.d").mkdir(exist_ok=True)
        (self.unit.with_suffix(".service.d") / "loose.conf").write_text(
            "[Service]\nUser=root\nCapabilityBoundingSet=~\nSystemCallFilter=\nProtectSystem=no\n", "ascii")
        with self.assertRaises(AssertionError):
            self.check()

    def test_users_and_files(self):
        folder = tempfile.TemporaryDirectory(prefix="atedmd-")
        self.addCleanup(folder.cleanup)
        root = pathlib.Path(folder.name)
        sysusers = next(path for path in self.root.rglob("sysusers.d/atedmd.conf"))
        if shutil.which("systemd-sysusers"):
            (root / "etc").mkdir()
            (root / "usr/lib/sysusers.d").mkdir(parents=True)
            shutil.copy(sysusers, root / "usr/lib/sysusers.d")
            subprocess.run(["systemd-sysusers", f"--root={root}", "atedmd.conf"], check=True, capture_output=True)
            self.assertRegex((root / "etc/passwd").read_text("ascii"), r"(?m)^atedm:.*:/var/lib/atedmd:/usr/sbin/nologin$")
        tmpfiles = next(path for path in self.root.rglob("tmpfiles.d/atedmd.conf")).read_text("ascii")
        self.assertEqual([line.split()[0] for line in tmpfiles.splitlines() if not line.startswith("#")], ["d", "z"])


if __name__ == "__main__":
    if shutil.which("systemd-analyze") is None:
        print("no systemd-analyze")
        sys.exit(77)
    unittest.main(verbosity=2)
