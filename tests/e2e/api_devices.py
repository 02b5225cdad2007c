#!/usr/bin/env python3
"""Devices of the daemon, on emulated GPUs: several at once, chosen by number and by name, and what is made on one is made
again where it is lost."""
import os
import pathlib
import subprocess
import tempfile
import unittest

from daemon import MODEL, PATIENCE, PROGRAM, SMALL, Daemon, images_of, series, wait_until

FIRST, SECOND = ("GPU-a0000000-0000-0000-0000-000000000000", "GPU-a1000000-0000-0000-0000-000000000001")
# Long enough to be caught at work.
MEDIUM = {**SMALL, "steps": 6}


class Gpus(Daemon):
    """A daemon with emulated GPUs. lose(n) takes the n-th from whichever worker uses it next."""

    def __init__(self, gpus=1, environment=None, **options):
        self.folder = tempfile.TemporaryDirectory(prefix="atedm-devices-")
        self.path = pathlib.Path(self.folder.name) / "lose"
        emulated = {"ATEDM_EMULATED_DEVICES": str(gpus), "ATEDM_EMULATED_LOSE": str(self.path), **(environment or {})}
        super().__init__(environment=emulated, **{"backend": "cuda", "dtype": "bf16", **options})

    def __exit__(self, kind, value, traceback):
        super().__exit__(kind, value, traceback)
        self.folder.cleanup()

    def lose(self, number):
        file = self.path.with_suffix(f".{number}")
        file.touch()
        wait_until(lambda: not file.exists(), f"device {number} is lost")

    def is_up(self, *devices):
        return all(self.gauge("atedm_worker_up", device=device) == 1 for device in devices)

    def restarts(self, device):
        return self.gauge("atedm_worker_restarts_total", device=device)

    def evaluations(self, device):
        return self.metrics().get(series("atedm_batch_size_count", device=device), 0)


def refused(gpus, **options):
    """(exit status, standard error) of a daemon that does not start, where there are so many GPUs."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with tempfile.TemporaryDirectory() as state:
        result = subprocess.run([PROGRAM, "--model", MODEL, "--listen", "127.0.0.1:0", f"--job-store={state}/jobs.db", *flags],
                                env={**os.environ, "ATEDM_EMULATED_DEVICES": str(gpus)}, capture_output=True, text=True,
                                timeout=PATIENCE, check=False)
    return result.returncode, result.stderr


class Loss(unittest.TestCase):
    def test_requests_survive_a_lost_device(self):
        with Gpus() as d:
            asked = [{**MEDIUM, "seed": seed, "pruning": pruning} for seed, pruning in ((1, "off"), (2, "at-edm"))]
            alone = [images_of(d.generate(fields)) for fields in asked]
            first, = d.workers()
            together = [d.in_background(fields) for fields in asked]
            wait_until(lambda: d.gauge("atedm_active_requests") == 2, "both are at work")
            d.lose(0)
            for expected, one in zip(alone, together):
                answer = one.answer()
                self.assertEqual(answer.status, 200, answer.body)
                self.assertEqual(images_of(answer), expected)
            second, = d.workers()
            self.assertNotEqual(second, first)
            self.assertEqual(d.restarts("cuda:0"), 1)
            self.assertTrue(d.is_up("cuda:0"))
            words, = [line for line in d.log().splitlines() if "worker lost" in line]
            for expected in ("cuda:0", "exit status 3", "cudaErrorIllegalAddress", "lost to this process"):
                self.assertIn(expected, words)
            self.assertEqual(images_of(d.generate(asked[0])), alone[0])

    def test_a_device_that_is_lost_each_time(self):
        """Every process loses it some calls after its start, in the middle of the request."""
        with Gpus(environment={"ATEDM_EMULATED_FAIL_AFTER": "300"}) as d:
            answer = d.generate(MEDIUM)
            self.assertEqual(answer.status, 500)
            self.assertEqual(d.restarts("cuda:0"), 2)
            self.assertIn("not tried again", d.log())
            self.assertEqual(d.gauge("atedm_active_requests"), 0)
            wait_until(lambda: d.is_up("cuda:0"), "up again")


class Figures(unittest.TestCase):
    NVML = {"ATEDM_EMULATED_NVML": "37 412500 61 123456789 1755 2619",
            "LD_LIBRARY_PATH": os.path.dirname(os.environ["ATEDM_CUDA_BACKEND"])}

    @staticmethod
    def figures(d):
        return {(name.removeprefix("atedm_device_"), dict(labels)["device"]): value for (name, labels), value in d.metrics().items()
                if name.startswith("atedm_device_") and name != "atedm_device_memory_bytes"}

    def test_all_of_them(self):
        with Gpus(2, self.NVML) as d:
            wait_until(lambda: len(self.figures(d)) == 16, "both devices have told")
            figures = self.figures(d)
            for n in (0, 1):
                device = f"cuda:{n}"
                self.assertAlmostEqual(figures["utilization_ratio", device], 0.37 + n / 100)
                self.assertAlmostEqual(figures["power_watts", device], 412.5 + n / 1000)
                self.assertEqual(figures["temperature_celsius", device], 61 + n)
                self.assertEqual(figures["memory_used_bytes", device], 123456789 + n)
                self.assertEqual(figures["sm_clock_hertz", device], (1755 + n) * 1e6)
                self.assertEqual(figures["memory_clock_hertz", device], (2619 + n) * 1e6)
                self.assertEqual(figures["memory_total_bytes", device], 8 << 30)
                self.assertLess(figures["memory_free_bytes", device], 8 << 30)

    def test_what_is_not_supported_has_no_series(self):
        with Gpus(1, {**self.NVML, "ATEDM_EMULATED_NVML": "- - 61 - 1755 -"}) as d:
            wait_until(lambda: self.figures(d), "the device has told")
            self.assertEqual({name for name, _ in self.figures(d)},
                             {"memory_free_bytes", "memory_total_bytes", "temperature_celsius", "sm_clock_hertz"})

    def test_without_nvml(self):
        for environment in ({}, {"LD_LIBRARY_PATH": self.NVML["LD_LIBRARY_PATH"]}):  # no library; no driver
            with Gpus(1, environment) as d:
                wait_until(lambda: self.figures(d), "the device has told")
                self.assertEqual({name for name, _ in self.figures(d)}, {"memory_free_bytes", "memory_total_bytes"})
        with Daemon(backend="cpu") as d:
            d.generate()
            self.assertEqual(self.figures(d), {})

    def test_they_come_back_with_the_device(self):
        with Gpus(1, self.NVML) as d:
            wait_until(lambda: self.figures(d), "the device has told")
            running = d.in_background(MEDIUM)
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "at work")
            d.lose(0)
            wait_until(lambda: d.restarts("cuda:0") == 1, "lost")
            self.assertEqual(running.answer().status, 200)
            wait_until(lambda: self.figures(d), "the device has told again")


class Memory(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """What is in use once the model is loaded, and what a request takes beside that."""
        with Gpus() as d:
            wait_until(lambda: d.gauge("atedm_device_memory_free_bytes", device="cuda:0"), "memory is known")
            cls.loaded = (8 << 30) - d.gauge("atedm_device_memory_free_bytes", device="cuda:0")
            weights = d.gauge("atedm_device_memory_bytes", device="cuda:0")
            d.generate()
            cls.each = d.gauge("atedm_device_memory_bytes", device="cuda:0") - weights

    def check(self, large, **options):
        """Requests wait for each other where they do not fit together; one that does not fit alone is answered; the worker
        goes on."""
        with Gpus(environment={"ATEDM_EMULATED_MEMORY": str(int(self.loaded + 2.5 * self.each))}, **options) as d:
            alone = images_of(d.generate())
            for one in [d.in_background(SMALL) for _ in range(4)]:
                answer = one.answer()
                self.assertEqual(answer.status, 200, answer.body)
                self.assertEqual(images_of(answer), alone)
            answer = d.generate({"width": 128, "height": 128})
            self.assertEqual((answer.status, answer.json()["type"]), (422, "urn:atedm:problem:no-memory"))
            self.assertIn(large, answer.json()["detail"])
            self.assertIn(large, d.log())
            self.assertEqual(images_of(d.generate()), alone)
            self.assertEqual(d.restarts("cuda:0"), 0)

    def test_the_default_is_what_is_free(self):
        self.check("does not fit into")

    def test_a_limit_beyond_what_is_there(self):
        self.check("no device memory", memory_limit=10 ** 12)

    def test_no_room_for_the_model(self):
        d = Gpus(environment={"ATEDM_EMULATED_MEMORY": "100000"}, wait=False)
        d.__enter__()
        self.assertEqual(d.process.wait(PATIENCE), 1)
        self.assertIn("no device memory for", d.log())
        d.__exit__(None, None, None)


class Several(unittest.TestCase):
    def test_both_make_the_same_pictures(self):
        with Gpus(2, max_active=1) as d:
            wait_until(lambda: d.is_up("cuda:0", "cuda:1"), "both are up")
            together = [d.in_background(MEDIUM) for _ in range(4)]
            pictures = {images_of(one.answer())[0] for one in together}
            self.assertEqual(len(pictures), 1)
            self.assertGreaterEqual(min(d.evaluations("cuda:0"), d.evaluations("cuda:1")), MEDIUM["steps"])
            model, = d.get("/v1/models").json()["models"]
            self.assertEqual(model["device"], "cuda:0")
            self.assertEqual(model["devices"], [
                {"device": "cuda:0", "name": "Emulated GPU 0", "uuid": FIRST, "memory_bytes": 8 << 30},
                {"device": "cuda:1", "name": "Emulated GPU 1", "uuid": SECOND, "memory_bytes": 8 << 30}])
            self.assertIn("Emulated GPU 1", d.log())
        with Daemon(dtype="f32", backend="cpu") as d:
            model, = d.get("/v1/models").json()["models"]
            self.assertEqual(model["devices"], [{"device": "cpu", "name": None, "uuid": None, "memory_bytes": None}])

    def test_one_is_lost_and_the_other_goes_on(self):
        with Gpus(2, max_active=1) as d:
            wait_until(lambda: d.is_up("cuda:0", "cuda:1"), "both are up")
            expected = images_of(d.generate(MEDIUM))
            second = d.workers()[1]
            together = [d.in_background(MEDIUM) for _ in range(2)]
            wait_until(lambda: d.gauge("atedm_active_requests") == 2, "both are at work")
            d.lose(0)
            self.assertEqual(d.get("/readyz").status, 200)
            for one in together:
                answer = one.answer()
                self.assertEqual(answer.status, 200)
                self.assertEqual(images_of(answer), expected)
            wait_until(lambda: d.is_up("cuda:0", "cuda:1"), "both are up again")
            self.assertEqual((d.restarts("cuda:0"), d.restarts("cuda:1")), (1, 0))
            self.assertIn(second, d.workers())
            before = d.evaluations("cuda:0")
            for one in [d.in_background(MEDIUM) for _ in range(2)]:
                self.assertEqual(images_of(one.answer()), expected)
            self.assertGreater(d.evaluations("cuda:0"), before)

    def test_chosen_ones(self):
        for chosen in ("1", "GPU-a1"):
            with Gpus(2, devices=chosen) as d:
                self.assertTrue(d.is_up("cuda:1"))
                self.assertNotIn(series("atedm_worker_up", device="cuda:0"), d.metrics())
                self.assertEqual([device["uuid"] for device in d.get("/v1/models").json()["models"][0]["devices"]], [SECOND])
                self.assertEqual(d.generate().status, 200)

    def test_several_workers_on_each(self):
        with Gpus(2, devices="1,0", workers=2) as d:
            wait_until(lambda: d.is_up("cuda:0", "cuda:1", "cuda:0:1", "cuda:1:1"), "all are up")
            self.assertEqual(len(d.workers()), 4)
            self.assertEqual([x["device"] for x in d.get("/v1/models").json()["models"][0]["devices"]], ["cuda:1", "cuda:0"])

    def test_refused(self):
        there = f"there are: cuda:0 (Emulated GPU 0, {FIRST})"
        for gpus, options, words in ((1, {"devices": "1"}, (f'devices: there is no device "1"; {there}',)),
                                     (1, {"devices": "GPU-ffff"}, ("GPU-ffff", there)),
                                     (1, {"devices": "0,0"}, ("devices: cuda:0 is there twice",)),
                                     (1, {"backend": "cpu", "devices": "0"}, ("devices:", "cpu")),
                                     (2, {"workers": 33}, ("workers: 33 on each of 2 devices are more than 64",))):
            status, errors = refused(gpus, **{"backend": "cuda", **options})
            self.assertEqual(status, 2, errors)
            for expected in words:
                self.assertIn(expected, errors)
        status, errors = refused(0, backend="cuda")
        self.assertEqual(status, 1)
        self.assertIn("no device answers", errors)


if __name__ == "__main__":
    unittest.main()
