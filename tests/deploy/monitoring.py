#!/usr/bin/env python3
"""A real Prometheus scrapes the daemon under a known load. Then every metric of api.md has its calculated value, promtool has no
complaint about the page, all rules are healthy, and each panel of the dashboard shows data."""
import collections
import json
import os
import pathlib
import re
import subprocess
import time
import unittest

from prometheus import DEPLOY, ROOT, Prometheus, skip_without

from daemon import MODEL, PROGRAM, Daemon, enter_class, wait_until
from dashboard import expressions
from key_file import KeyFile
from load import CountingDaemon, Load, keys_and_entries
from metric_names import documented

HAS_GPUS = "ATEDM_CUDA_BACKEND" in os.environ
NVML = "37 412500 61 123456789 1755 2619"
STAGES = ("text_encoder", "unet", "vae")


def levels(config):
    """A function from the name of a block, as estimates have it, to its feature level."""
    depth = len(config["block_out_channels"])

    def level(name):
        part, *numbers = name.split(".")
        return {"down": lambda n: n, "mid": lambda n: depth - 1, "up": lambda n: depth - 1 - n}[part](
            int(numbers[0]) if numbers else 0)

    return level


class Monitoring(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        keys, entries = keys_and_entries()
        file = KeyFile(cls.Cleanup(cls), *entries)
        cls.d = enter_class(cls, CountingDaemon(backend="cpu", api_keys=file, queue_limit=1, max_active=1))
        cls.targets = [f"127.0.0.1:{cls.d.port}"]
        if HAS_GPUS:
            cls.gpu = enter_class(cls, Daemon(backend="cuda", dtype="bf16", environment={
                "ATEDM_EMULATED_DEVICES": "1", "ATEDM_EMULATED_NVML": NVML,
                "LD_LIBRARY_PATH": os.path.dirname(os.environ["ATEDM_CUDA_BACKEND"])}))
            cls.targets.append(f"127.0.0.1:{cls.gpu.port}")
        cls.prometheus = Prometheus(*cls.targets)
        cls.prometheus.__enter__()
        cls.addClassCleanup(cls.prometheus.__exit__, None, None, None)
        cls.prometheus.scraped(0)  # rates need a scrape before the load
        cls.load = Load(cls("test_page"), cls.d, keys, cls.prometheus.query)
        for part in (cls.load.run_failure, cls.load.pictures, cls.load.run_jobs, cls.load.run_refusals, cls.load.run_full_queue,
                     cls.load.run_quota, cls.load.run_full_disk, cls.load.run_restart):
            part()
        cls.estimates = [json.loads(cls.load.ask({**fields, "seed": 1}, "/v1/estimate").body) for fields in cls.load.fields]
        cls.models = cls.load.get("/v1/models").json()["models"]
        if HAS_GPUS:
            cls.gpu.generate({"steps": 1, "guidance_scale": 1})
        cls.at = cls.prometheus.scraped(time.time())
        cls.values = [cls.scrape(target) for target in cls.targets]

    @classmethod
    def scrape(cls, target):
        """The values of a daemon's last scrape, {(name, labels): value}."""
        values = {}
        for labels, value in cls.prometheus.query(f'{{instance="{target}", __name__=~"(atedm|process)_.*"}}', cls.at[target]):
            name = labels.pop("__name__")
            del labels["instance"], labels["job"]
            values[name, tuple(sorted(labels.items()))] = value
        return values

    class Cleanup:
        """The part of a test case that KeyFile needs."""

        def __init__(self, case):
            self.addCleanup = case.addClassCleanup

    def value(self, name, daemon=0, **labels):
        return self.values[daemon][name, tuple(sorted(labels.items()))]

    def series(self, name, daemon=0):
        return {labels: value for (other, labels), value in self.values[daemon].items() if other == name}

    def total(self, what, part):
        return sum(body[what][part] for body in self.load.bodies)

    def check_histogram(self, name, observed, **labels):
        """Compares a histogram with `observed`, a list of all values that it should have counted."""
        self.assertEqual(self.value(name + "_count", **labels), len(observed))
        self.assertAlmostEqual(self.value(name + "_sum", **labels), sum(observed))
        for found, value in self.series(name + "_bucket").items():
            found = dict(found)
            bound = float(found.pop("le"))
            if found == labels:
                self.assertEqual(value, sum(one <= bound for one in observed), f"{name} {labels} {bound}")

    def test_every_metric_is_there(self):
        """The metrics of GPUs only if there is an (emulated) GPU."""
        known = set(documented((ROOT / "api.md").read_text()))
        found = {name if name in known else re.sub(r"_(bucket|sum|count)$", "", name)
                 for values in self.values for name, _ in values}
        gpus = {name for name in known if name.startswith("atedm_device_")} - {"atedm_device_memory_bytes"}
        self.assertEqual(found, known if HAS_GPUS else known - gpus)

    def test_every_family_is_there(self):
        """Also those that have no series yet."""
        page = self.d.get("/metrics").body.decode()
        for kind in ("HELP", "TYPE"):
            found = re.findall(rf"^# {kind} (\w+) ", page, re.MULTILINE)
            self.assertEqual(sorted(found), sorted(documented((ROOT / "api.md").read_text())))

    def test_page(self):
        page = self.d.get("/metrics").body
        for daemon in ([self.d, self.gpu] if HAS_GPUS else [self.d]):
            page = daemon.get("/metrics").body
            result = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
            self.assertEqual((result.returncode, result.stdout + result.stderr), (0, b""))

    def test_requests(self):
        found = {}
        for labels, value in self.series("atedm_requests_total").items():
            labels = dict(labels)
            if value and labels["route"] != "/metrics":
                found[labels["route"], labels["code"]] = value
        # /metrics is left out: test_page and Prometheus request it too.
        expected = {key: n for key, n in self.d.answers.items() if key[0] != "/metrics"}
        self.assertEqual(found, expected)
        # A scrape shows in the metrics only from the next one on.
        target = self.targets[0]
        scrapes, = self.prometheus.query(f'count_over_time(up{{instance="{target}"}}[1h])', self.at[target])
        self.assertEqual(self.value("atedm_requests_total", route="/metrics", code="200"), scrapes[1] - 1)

    def test_request_durations(self):
        for labels, count in self.series("atedm_request_duration_seconds_count").items():
            route = dict(labels)["route"]
            answered = sum(value for other, value in self.series("atedm_requests_total").items() if dict(other)["route"] == route)
            self.assertEqual(count, answered, route)
            buckets = sorted((float(dict(other)["le"]), value)
                             for other, value in self.series("atedm_request_duration_seconds_bucket").items()
                             if dict(other)["route"] == route)
            self.assertEqual(buckets[-1], (float("inf"), count))
            self.assertEqual([value for _, value in buckets], sorted(value for _, value in buckets))
            # A value in a bucket is greater than its lower bound and at most its upper bound.
            lowest, highest, below = 0, 0, (0, 0)
            for bound, value in buckets:
                lowest += (value - below[1]) * below[0]
                highest += (value - below[1]) * bound if value > below[1] else 0
                below = (bound, value)
            self.assertTrue(lowest <= self.value("atedm_request_duration_seconds_sum", route=route) <= highest, route)
        waited = sum(body["latency"]["total_s"] for body in self.load.bodies[:5])
        whole = sum(self.value("atedm_request_duration_seconds_sum", route=route) for route in ("/generate", "/v1/generate"))
        self.assertGreaterEqual(whole, waited)

    def test_stages(self):
        for stage in ("text_encoder", "denoise", "vae", "encode"):
            self.check_histogram("atedm_stage_duration_seconds", [body["latency"][stage + "_s"] for body in self.load.bodies],
                                 stage=stage)
        # Four more have started: the failed job, the canceled job, the one whose client hung up, and the job of the quota.
        self.assertEqual(self.value("atedm_stage_duration_seconds_count", stage="queue"), len(self.load.bodies) + 4)
        self.assertGreaterEqual(self.value("atedm_stage_duration_seconds_sum", stage="queue"),
                                0.999 * self.total("latency", "queue_s"))

    def test_steps(self):
        """No two requests share an evaluation. The evaluations of requests that did not finish have all their images."""
        steps = [s for body in self.load.bodies for s in body["latency"]["steps_s"]]
        count = self.value("atedm_step_duration_seconds_count", device="cpu")
        lost = count - len(steps)
        self.assertGreater(lost, 0)
        self.assertGreater(self.value("atedm_step_duration_seconds_sum", device="cpu"), sum(steps))
        self.assertEqual(self.value("atedm_batch_size_count", device="cpu"), count)
        images = sum(f["steps"] * f.get("num_images", 1) for f in self.load.fields)
        self.assertEqual(self.value("atedm_batch_size_sum", device="cpu"), images + 4 * lost)
        sizes = [f.get("num_images", 1) for f in self.load.fields for _ in range(f["steps"])] + [4] * int(lost)
        self.check_histogram("atedm_batch_size", sizes, device="cpu")

    def test_images(self):
        expected = collections.Counter()
        for fields, body in zip(self.load.fields, self.load.bodies):
            expected[body["pruning"]["preset"] or "custom"] += fields.get("num_images", 1)
        found = {dict(labels)["pruning"]: value for labels, value in self.series("atedm_images_total").items()}
        self.assertEqual(found, expected)
        self.assertEqual({dict(labels)["sampler"] for labels in self.series("atedm_images_total")}, {"euler"})

    def test_flops(self):
        """The FLOPs are those of the answers, and those of the estimates."""
        for stage in STAGES:
            executed = self.value("atedm_flops_total", kind="executed", stage=stage)
            self.assertEqual(executed, self.total("flops", stage))
            self.assertEqual(executed, sum(one["flops"][stage] for one in self.estimates))
        baseline = sum(self.value("atedm_flops_total", kind="baseline", stage=stage) for stage in STAGES)
        self.assertEqual(baseline, self.total("flops", "baseline"))
        self.assertEqual(self.value("atedm_flops_total", kind="overhead", stage="unet"), self.total("flops", "overhead"))
        self.check_histogram("atedm_flops_saved_ratio", [1 - one["flops"]["executed"] / one["flops"]["baseline"]
                                                         for one in self.estimates])

    def test_tokens(self):
        """The tokens follow from sizes, steps and the plans in the estimates: each block keeps n - floor(ratio n) of n tokens."""
        level = levels(json.loads((pathlib.Path(MODEL) / "unet" / "config.json").read_text()))
        blocks = [e for e in self.estimates if e["plan"]][0]["plan"][0]["ratios"]
        kept, pruned = collections.Counter(), collections.Counter()
        for fields, one in zip(self.load.fields, self.estimates):
            samples = one["num_images"] * (2 if fields.get("guidance_scale", 7) > 1 else 1)
            plan = one["plan"] or [{"first_step": 0, "last_step": one["steps"] - 1, "ratios": dict.fromkeys(blocks, 0)}]
            for run in plan:
                for name, ratio in run["ratios"].items():
                    # A side of the latents is an eighth of the picture's. Each level halves it, rounding up.
                    n = -(-one["width"] // (8 << level(name))) * -(-one["height"] // (8 << level(name)))
                    keep = max(1, n - round(ratio * 1e6) * n // 1000000)
                    times = samples * (run["last_step"] - run["first_step"] + 1)
                    kept[level(name)] += keep * times
                    pruned[level(name)] += (n - keep) * times
        for kind, expected in (("kept", kept), ("pruned", pruned)):
            found = {int(dict(labels)["level"]): value for labels, value in self.series("atedm_tokens_total").items()
                     if dict(labels)["kind"] == kind}
            self.assertEqual(found, dict(expected), kind)

    def test_refusals_jobs_and_store(self):
        rejected = {dict(labels)["reason"]: n for labels, n in self.series("atedm_queue_rejected_total").items()}
        # The reason "draining" would count requests during a drain.
        self.assertEqual(rejected, {**self.load.rejected, "draining": 0})
        self.assertEqual(min(self.load.rejected.values()), 1)
        jobs = {dict(labels)["state"]: n for labels, n in self.series("atedm_jobs_total").items()}
        self.assertEqual(jobs, self.load.jobs)
        errors = {dict(labels)["operation"]: n for labels, n in self.series("atedm_store_errors_total").items()}
        self.assertEqual((errors["add"], errors["expire"]), (1, 0))
        # The daemon tries again every second.
        self.assertTrue(2 <= errors["end"] <= self.load.full_disk_s + 2, errors)

    def test_gauges_at_rest(self):
        for name in ("queue_depth", "queue_flops", "queue_oldest_seconds", "active_requests"):
            self.assertEqual(self.series("atedm_" + name), {(): 0}, name)
        self.assertEqual(self.value("atedm_worker_up", device="cpu"), 1)
        self.assertEqual(self.value("atedm_worker_restarts_total", device="cpu"), self.load.restarts)
        model, = self.models
        self.assertEqual(self.series("atedm_model_info"), {tuple(sorted((k, model["name" if k == "model" else k])
                                                                        for k in ("model", "dtype", "backend"))): 1})
        version = subprocess.check_output([PROGRAM, "--version"], text=True).split()[1]
        self.assertEqual(self.series("atedm_build_info"), {(("version", version),): 1})
        # The parameters, except those that only encode pictures, and the scratch memory kept from the last requests.
        parameters = model["parameters"] * (4 if model["dtype"] == "f32" else 2)
        memory = self.value("atedm_device_memory_bytes", device="cpu")
        self.assertTrue(0.97 * parameters < memory < parameters + (64 << 20), memory)

    def test_process(self):
        pid = self.d.process.pid
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            pages = [int(word) * os.sysconf("SC_PAGE_SIZE") for word in file.read().split()]
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        self.assertTrue(0 < self.value("process_cpu_seconds_total") <= cpu)
        self.assertAlmostEqual(self.value("process_open_fds"), len(os.listdir(f"/proc/{pid}/fd")), delta=8)
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            limit = re.search(r"^Max open files +(\d+)", file.read(), re.MULTILINE)
        self.assertEqual(self.value("process_max_fds"), int(limit.group(1)))
        self.assertAlmostEqual(self.value("process_virtual_memory_bytes") / pages[0], 1, 1)
        self.assertAlmostEqual(self.value("process_resident_memory_bytes") / pages[1], 1, 1)
        self.assertAlmostEqual(self.value("process_start_time_seconds"), os.stat(f"/proc/{pid}").st_ctime, delta=5)

    @unittest.skipUnless(HAS_GPUS, "needs the emulated backend")
    def test_devices(self):
        expected = {"utilization_ratio": 0.37, "power_watts": 412.5, "temperature_celsius": 61, "memory_used_bytes": 123456789,
                    "sm_clock_hertz": 1755e6, "memory_clock_hertz": 2619e6, "memory_total_bytes": 8 << 30}
        for name, value in expected.items():
            self.assertAlmostEqual(self.value("atedm_device_" + name, 1, device="cuda:0"), value)
        free = self.value("atedm_device_memory_free_bytes", 1, device="cuda:0")
        held = self.value("atedm_device_memory_bytes", 1, device="cuda:0")
        self.assertTrue(0 < held <= (8 << 30) - free)

    def shown(self, expression, what="it"):
        """Waits until the expression has values that are numbers, and returns them. It may depend on a rule, which records the
        last request only at its next evaluation."""
        return wait_until(lambda: [value for _, value in self.prometheus.query(expression, time.time()) if value == value],
                          f"{what}: {expression} shows something")

    def test_rules(self):
        """Prometheus evaluates all rules. The alerts show what the load did, and nothing else."""
        def all_evaluated():
            return all(rule["health"] == "ok" for group in self.prometheus.api("rules")["groups"] for rule in group["rules"])

        wait_until(all_evaluated, "every rule is evaluated")

        def alerts():
            return {(alert["labels"]["alertname"], alert["state"]) for alert in self.prometheus.api("alerts")["alerts"]}

        # An evaluation between a request and its first step may raise another alert; the next evaluation ends it.
        wanted = {("AtedmStoreFailing", "firing"), ("AtedmQueueFull", "pending")}
        wait_until(lambda: alerts() == wanted, f"alerts are {wanted}")
        saved, = self.shown(f'instance:atedm_flops_saved:ratio_rate5m{{instance="{self.targets[0]}"}}')
        self.assertTrue(0 < saved < 1, saved)

    def test_dashboard(self):
        """Every panel shows data; those of GPUs only if there is an (emulated) GPU."""
        board = json.loads((DEPLOY / "grafana" / "dashboards" / "atedmd.json").read_text())
        for panel, expression in expressions(board):
            if "atedm_device_" in expression and "atedm_device_memory_bytes" not in expression and not HAS_GPUS:
                continue
            self.shown(expression, panel)


if __name__ == "__main__":
    skip_without("prometheus", "promtool")
    unittest.main()
