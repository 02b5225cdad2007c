"""Runs a real Prometheus for the tests of this folder, with the configuration of deploy/prometheus, but scraping every second.
Tests query it over its API. Exit status 77, "skipped", if Debian's package prometheus is not installed."""
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

# Seconds between two scrapes, and between two evaluations of rules: so windows of a few minutes have enough samples.
INTERVAL_S = 1
PATIENCE = 60


def skip_without(*programs):
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        print(f"not installed: {', '.join(missing)} (deploy/install-deps.sh check)")
        sys.exit(77)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Prometheus:
    """`with Prometheus("127.0.0.1:8080") as p:`"""

    def __init__(self, *targets):
        self.folder = tempfile.TemporaryDirectory(prefix="atedm-prometheus-")
        at = pathlib.Path(self.folder.name)
        shutil.copytree(DEPLOY / "prometheus", at, dirs_exist_ok=True)
        (at / "targets" / "atedmd.yml").write_text(json.dumps([{"targets": targets}]))
        self.n_targets = len(targets)
        self.port = free_port()
        file = at / "prometheus.yml"
        text = file.read_text().replace("127.0.0.1:9090", f"127.0.0.1:{self.port}")
        for name in ("scrape_interval", "evaluation_interval"):
            assert f"{name}: 15s" in text, name
            text = text.replace(f"{name}: 15s", f"{name}: {INTERVAL_S}s")
        file.write_text(text)
        self.log = open(at / "log", "w+", encoding="utf-8")
        self.command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={at / 'data'}",
                        f"--web.listen-address=127.0.0.1:{self.port}"]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        self.wait(self.is_ready, "Prometheus is ready")
        return self

    def __exit__(self, kind, value, traceback):
        self.process.terminate()
        status = self.process.wait(PATIENCE)
        if kind is not None or status != 0:
            self.log.seek(0)
            print(self.log.read())
        self.log.close()
        self.folder.cleanup()
        if kind is None and status != 0:
            raise AssertionError(f"Prometheus: exit status {status}")

    @staticmethod
    def wait(condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {PATIENCE} s")
            time.sleep(0.1)

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=PATIENCE) as answer:
                return answer.status == 200
        except OSError:
            return False

    def api(self, path, **fields):
        query = urllib.parse.urlencode(fields)
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=PATIENCE) as answer:
            return json.load(answer)["data"]

    def query(self, expression, at=None):
        """The result of a query, a vector: a list of (labels, value)."""
        fields = {"query": expression} if at is None else {"query": expression, "time": at}
        return [(one["metric"], float(one["value"][1])) for one in self.api("query", **fields)["result"]]

    def scraped(self, since):
        """Waits until every daemon has been scraped after the Unix time `since`. Returns {instance: time of its last scrape}.
        Query the values of a daemon at its own time: another daemon's time may be earlier."""
        times = {}

        def all_of_them():
            times.update((labels["instance"], value) for labels, value in self.query('timestamp(up{job="atedmd"})'))
            return len(times) == self.n_targets and min(times.values()) > since

        self.wait(all_of_them, "a scrape")
        return times
