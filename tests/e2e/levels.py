"""What a daemon has to come back to after whatever was done to it."""
import os
import pathlib
import time

from daemon import images_of, wait_until

# Resident memory may end so much above where it was: a share, and bytes for a small daemon's noise.
GROWTH = 0.05
GROWTH_BYTES = 2 << 20


def status_bytes(pid, field):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"no {field}")


def resident_bytes(pid):
    return status_bytes(pid, "VmRSS")


def open_files(pid):
    """Numbers of its descriptors, ascending."""
    return sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))


def _processor_seconds(stat):
    fields = pathlib.Path(stat).read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """Processor time of all its threads."""
    return _processor_seconds(f"/proc/{pid}/stat")


def loop_seconds(pid):
    """Processor time of its first thread, which is the loop's."""
    return _processor_seconds(f"/proc/{pid}/task/{pid}/stat")


def is_sanitized(pid):
    """A sanitizer keeps what was freed, to find who uses it: memory says nothing then."""
    maps = pathlib.Path(f"/proc/{pid}/maps").read_text(encoding="ascii")
    return any(name in maps for name in ("libasan", "libtsan", "libclang_rt"))


class Unchanged:
    """`with Unchanged(d, fields):` the daemon is alive behind it, with the memory and the descriptors that it had, with
    nothing in its queue or at work, and makes of a request what it made of it before."""

    def __init__(self, d, fields=None):
        self.d = d
        self.fields = fields

    def picture(self):
        answer = self.d.generate(self.fields)
        assert answer.status == 200, answer.body
        return images_of(answer)

    def at_rest(self):
        return all(self.d.gauge(name) == 0 for name in
                   ("atedm_active_requests", "atedm_queue_depth", "atedm_queue_flops"))

    def check_picture(self):
        assert self.picture() == self.expected, "another picture"

    def __enter__(self):
        self.pid = self.d.process.pid
        self.expected = self.picture()
        wait_until(self.at_rest, "at rest")
        time.sleep(0.3)  # the daemon closes its end of the connections so far
        self.files = len(open_files(self.pid))
        self.resident = resident_bytes(self.pid)
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            return
        self.check_picture()
        wait_until(self.at_rest, "at rest")
        wait_until(lambda: len(open_files(self.pid)) == self.files,
                   f"{self.files} descriptors, not {len(open_files(self.pid))}")
        if not is_sanitized(self.pid):
            most = self.resident * (1 + GROWTH) + GROWTH_BYTES
            wait_until(lambda: resident_bytes(self.pid) <= most,
                       f"{self.resident} bytes resident, not {resident_bytes(self.pid)}")
