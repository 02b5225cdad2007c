#!/usr/bin/env python3
"""In control groups with limits, as containers and services have them: threads and requests keep to what there is. Skipped where
no group can be made, which takes root."""
import contextlib
import os
import pathlib
import tempfile
import unittest

from daemon import SMALL, Daemon, wait_until

MOUNT = pathlib.Path("/sys/fs/cgroup")
# {controller: files of version 1, files of version 2}, of one processor and of so many bytes.
MEMORY = 500_000_000  # a worker with a thread for each of many processors fits
LIMITS = {"cpu": ({"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"}, {"cpu.max": "100000 100000"}),
          "memory": ({"memory.limit_in_bytes": str(MEMORY)}, {"memory.max": str(MEMORY)})}


@contextlib.contextmanager
def group(controller):
    """A new group's folder."""
    is_1 = (MOUNT / controller).is_dir()
    folder = None
    try:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="atedmd-", dir=MOUNT / controller if is_1 else MOUNT))
        for name, value in LIMITS[controller][0 if is_1 else 1].items():
            (folder / name).write_text(value)
    except OSError as error:
        if folder:
            folder.rmdir()
        raise unittest.SkipTest(f"no group: {error}") from None
    try:
        yield folder
    finally:
        wait_until(lambda: not (folder / "cgroup.procs").read_text(), "the group is empty")
        folder.rmdir()


class Contained(Daemon):
    def __init__(self, folder, **options):
        super().__init__(**options)
        self.command = ["sh", "-c", f'echo $$ >{folder}/cgroup.procs && exec "$@"', "sh", *self.command]


@unittest.skipIf(os.environ.get("ATEDM_TEST_BACKEND", "cpu") != "cpu", "of CPUs")
class Containers(unittest.TestCase):
    def test_as_many_threads_as_the_quota_is_worth(self):
        with group("cpu") as folder, Contained(folder) as d:
            for pid in d.workers():
                words = pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0")
                self.assertIn("OMP_NUM_THREADS=" + os.environ.get("OMP_NUM_THREADS", "1"), words)

    @unittest.skipIf(os.environ.get("ATEDM_FAULT_INJECTION") == "1", "the sanitizers of such builds take memory of their own")
    def test_a_request_that_does_not_fit_is_refused(self):
        large = {**SMALL, "width": 4096, "height": 4096, "steps": 1}
        with group("memory") as folder, Contained(folder, max_area=1 << 24) as d:
            first, = d.workers()
            self.assertEqual(d.generate(SMALL).status, 200)
            answer = d.generate(large)
            self.assertEqual(answer.status, 422)
            self.assertIn("does not fit", answer.json()["detail"])
            self.assertEqual(d.generate(SMALL).status, 200)
            self.assertEqual(d.workers(), [first])


if __name__ == "__main__":
    unittest.main()
