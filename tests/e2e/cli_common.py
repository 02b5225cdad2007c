"""What the command line's tests share: running atedm, reading PNG and safetensors files."""
import json
import os
import pathlib
import struct
import subprocess
import tempfile
import unittest
import zlib

import environment  # noqa: F401  (what the shell exports is none of the tests')

ROOT = pathlib.Path(__file__).resolve().parents[2]
ATEDM = os.environ.get("ATEDM", str(ROOT / "build/cli/atedm"))
MODEL = ROOT / "tests/golden/data/models/a"
# Tests run side by side: threads that wait must not burn the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def atedm(*args):
    """Runs the program; returns the finished process with its output as text."""
    return subprocess.run((ATEDM, *map(str, args)), capture_output=True, text=True, timeout=600,
                          check=False, stdin=subprocess.DEVNULL)


def read_png(path):
    """(width, height, rows of RGB bytes, {key: text}) of an 8-bit RGB PNG."""
    data = pathlib.Path(path).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", "not a PNG"
    place, pixels, texts, size = 8, b"", {}, None
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place:place + 8])
        body = data[place + 8:place + 8 + length]
        (crc,) = struct.unpack(">I", data[place + 8 + length:place + 12 + length])
        assert crc == zlib.crc32(kind + body), f"{kind}: wrong CRC"
        place += 12 + length
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
            assert body[8:10] == b"\x08\x02", "not 8-bit RGB"
        elif kind == b"IDAT":
            pixels += body
        elif kind == b"tEXt":
            key, _, value = body.partition(b"\0")
            texts[key.decode("latin-1")] = value.decode("latin-1")
        elif kind == b"iTXt":
            key, _, rest = body.partition(b"\0")
            texts[key.decode("latin-1")] = rest[2:].split(b"\0", 2)[2].decode("utf-8")
    return (*size, zlib.decompress(pixels), texts)


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    base = 8 + length
    return {
        name: (entry["dtype"], entry["shape"],
               data[base + entry["data_offsets"][0]:base + entry["data_offsets"][1]])
        for name, entry in header.items()
    }


class CommandTest(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="atedm-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_ok(self, *args):
        """Runs atedm, which has to succeed in silence on standard error; returns its output."""
        result = atedm(*args)
        self.assertEqual(0, result.returncode, result.stderr)
        self.assertEqual("", result.stderr)
        return result.stdout

    def run_json(self, *args):
        return json.loads(self.run_ok(*args, "--json"))

    def run_wrong(self, status, *args):
        """Runs atedm, which has to fail with that exit status; returns what it said."""
        result = atedm(*args)
        self.assertEqual(status, result.returncode, result.stderr)
        self.assertEqual("", result.stdout)
        self.assertNotEqual("", result.stderr)
        return result.stderr
