#!/usr/bin/env python3
"""Every metric holds what was asked for: arithmetic after known requests."""
import os
import subprocess
import time
import unittest

from daemon import PROGRAM, SMALL, Daemon, series, wait_until


def settled(d, name):
    """The metrics, once this one stays as it is for a moment."""
    last = [d.metrics()]

    def stays():
        time.sleep(0.2)
        last.append(d.metrics())
        return last[-1][name] == last[-2][name]

    wait_until(stays, "a level of " + name[0])
    return last[-1]


class Metrics(unittest.TestCase):
    def test_at_the_start(self):
        with Daemon() as d:
            metrics = d.metrics()
            self.assertEqual(metrics[series("atedm_worker_up", device="cpu")], 1)
            self.assertEqual(metrics[series("atedm_worker_restarts_total", device="cpu")], 0)
            self.assertGreater(metrics[series("atedm_device_memory_bytes", device="cpu")], 0)
            for name in ("queue_depth", "queue_flops", "active_requests"):
                self.assertEqual(metrics[series("atedm_" + name)], 0)
            for reason in ("full", "draining", "deadline", "client_gone"):
                self.assertEqual(metrics[series("atedm_queue_rejected_total", reason=reason)], 0)
            info = [dict(labels) for name, labels in metrics if name == "atedm_model_info"]
            model, = d.get("/v1/models").json()["models"]
            self.assertEqual(info, [{"model": model["name"], "dtype": model["dtype"],
                                     "backend": model["backend"]}])
            version = subprocess.check_output([PROGRAM, "--version"], text=True).split()[1]
            self.assertEqual(metrics[series("atedm_build_info", version=version)], 1)
            self.assertNotIn("atedm_images_total", [name for name, _ in metrics])

    def test_process(self):
        with Daemon() as d:
            pid = d.process.pid
            fds = series("process_open_fds")
            # Connections of the start may still be closing.
            before = settled(d, fds)
            sockets = [d.connect() for _ in range(5)]
            wait_until(lambda: d.gauge("process_open_fds") >= before[fds] + 5,
                       "five more descriptors")
            for s in sockets:
                s.close()
            with open(f"/proc/{pid}/statm", encoding="ascii") as file:
                pages = [int(word) * os.sysconf("SC_PAGE_SIZE") for word in file.read().split()]
            metrics = d.metrics()
            self.assertAlmostEqual(metrics[series("process_virtual_memory_bytes")] / pages[0], 1, 1)
            self.assertAlmostEqual(metrics[series("process_resident_memory_bytes")] / pages[1], 1, 1)
            started = os.stat(f"/proc/{pid}").st_ctime
            self.assertAlmostEqual(metrics[series("process_start_time_seconds")], started, delta=5)
            self.assertEqual(metrics[series("process_start_time_seconds")],
                             before[series("process_start_time_seconds")])
            wait_until(lambda: d.gauge("process_cpu_seconds_total") > 0, "a tick of processor time")
            self.assertGreater(metrics[series("process_max_fds")], 10)

    def test_requests(self):
        with Daemon(wait=False) as d:
            d.get("/nowhere")
            d.get("/a/path/that/no/other/client/uses")
            d.post("/generate", b"{")
            d.generate({"steps": 0})
            d.generate({"steps": 999})
            d.get("/generate")
            d.post("/v1/estimate", SMALL)
            metrics = d.metrics()

            def count(route, code):
                return metrics.get(series("atedm_requests_total", route=route, code=str(code)), 0)

            self.assertEqual(count("other", 404), 2)
            self.assertEqual(count("/generate", 400), 1)
            self.assertEqual(count("/generate", 422), 2)
            self.assertEqual(count("/generate", 405), 1)
            self.assertEqual(count("/v1/estimate", 200), 1)
            self.assertEqual(count("/metrics", 200), 0, "not before it was answered")
            self.assertEqual(d.gauge("atedm_requests_total", route="/metrics", code="200"), 1)
            duration = series("atedm_request_duration_seconds_count", route="/generate")
            self.assertEqual(metrics[duration], 4)
            total = sum(v for (name, _), v in metrics.items() if name == "atedm_requests_total")
            durations = sum(v for (name, _), v in metrics.items()
                            if name == "atedm_request_duration_seconds_count")
            self.assertEqual(total, durations)

    def test_generations(self):
        asked = [{"steps": 2, "num_images": 1}, {"steps": 3, "num_images": 6},
                 {"steps": 4, "pruning": "off"}, {"steps": 2, "pruning": {"ratio": 0.5}},
                 {"steps": 1, "guidance_scale": 1, "width": 64, "pruning": "at-edm-b"}]
        with Daemon(max_images=8) as d:
            bodies = [d.generate(fields).json() for fields in asked]
            m = d.metrics()

            def total(what, part):
                return sum(body[what][part] for body in bodies)

            # FLOPs, by stage.
            for stage in ("text_encoder", "unet", "vae"):
                self.assertEqual(m[series("atedm_flops_total", kind="executed", stage=stage)],
                                 total("flops", stage))
            baseline = sum(m[series("atedm_flops_total", kind="baseline", stage=stage)]
                           for stage in ("text_encoder", "unet", "vae"))
            self.assertEqual(baseline, total("flops", "baseline"))
            self.assertEqual(m[series("atedm_flops_total", kind="overhead", stage="unet")],
                             total("flops", "overhead"))
            self.assertEqual(m[series("atedm_flops_saved_ratio_count")], len(asked))
            self.assertAlmostEqual(m[series("atedm_flops_saved_ratio_sum")],
                                   total("flops", "saved_ratio"))

            # Stages and steps.
            for stage in ("text_encoder", "denoise", "vae", "encode", "queue"):
                self.assertEqual(m[series("atedm_stage_duration_seconds_count", stage=stage)],
                                 len(asked))
                self.assertAlmostEqual(m[series("atedm_stage_duration_seconds_sum", stage=stage)],
                                       total("latency", stage + "_s"))
            self.assertEqual(m[series("atedm_step_duration_seconds_count", device="cpu")], 12)
            self.assertAlmostEqual(m[series("atedm_step_duration_seconds_sum", device="cpu")],
                                   total("latency", "denoise_s"))

            # Images: "at-edm" is the default of the first two; an object without a preset is "custom".
            self.assertEqual(m[series("atedm_images_total", sampler="euler", pruning="at-edm")], 7)
            self.assertEqual(m[series("atedm_images_total", sampler="euler", pruning="custom")], 1)
            self.assertEqual(m[series("atedm_images_total", sampler="euler", pruning="off")], 1)
            self.assertEqual(m[series("atedm_images_total", sampler="euler", pruning="at-edm-b")], 1)

            # UNet evaluations, the second request's of six images.
            self.assertEqual(m[series("atedm_batch_size_count", device="cpu")], 2 + 3 + 4 + 2 + 1)
            self.assertEqual(m[series("atedm_batch_size_sum", device="cpu")], 2 + 18 + 4 + 2 + 1)
            self.assertEqual(bodies[1]["batch"], {"mean_size": 6, "max_size": 6})

            self.check_views(d, bodies)

    def check_views(self, d, bodies):
        flops = d.get("/metrics/flops").json()
        self.assertEqual(flops["requests"], len(bodies))
        self.assertEqual(flops["total"]["executed"], sum(b["flops"]["executed"] for b in bodies))
        self.assertEqual(flops["total"]["baseline"], sum(b["flops"]["baseline"] for b in bodies))
        self.assertEqual(flops["total"]["overhead"], sum(b["flops"]["overhead"] for b in bodies))
        self.assertAlmostEqual(flops["total"]["saved_ratio"],
                               1 - flops["total"]["executed"] / flops["total"]["baseline"])
        self.assertEqual(sum(stage["executed"] for stage in flops["stages"].values()),
                         flops["total"]["executed"])
        self.assertGreater(flops["flops_per_s"], 0)
        latency = d.get("/metrics/latency").json()
        self.assertEqual(latency["requests"]["/generate"]["count"], len(bodies))
        steps = latency["steps"]["cpu"]
        self.assertEqual(steps["count"], 12)
        self.assertAlmostEqual(steps["mean_s"] * 12, sum(b["latency"]["denoise_s"] for b in bodies))
        self.assertTrue(0 <= steps["p50_s"] <= steps["p90_s"] <= steps["p99_s"])
        self.assertEqual(latency["queue"], {"depth": 0, "active": 0, "expected_wait_s": 0})

    def test_tokens(self):
        def tokens(d):
            return [sum(value for (name, labels), value in d.metrics().items()
                        if name == "atedm_tokens_total" and ("kind", kind) in labels)
                    for kind in ("kept", "pruned")]

        with Daemon() as d:
            fields = {"width": 64, "height": 64, "steps": 1}
            d.generate({**fields, "pruning": "off"})
            whole, pruned = tokens(d)
            self.assertEqual(pruned, 0)
            # Three steps, two images, half of every block's tokens (all even at this size).
            d.generate({**fields, "steps": 3, "num_images": 2,
                        "pruning": {"ratio": 0.5, "schedule": "uniform"}})
            kept, pruned = tokens(d)
            self.assertEqual(pruned, 3 * 2 * whole / 2)
            self.assertEqual(kept - whole, pruned)
            # Without guidance there is one sample an image, not two.
            d.generate({**fields, "pruning": "off", "guidance_scale": 1})
            self.assertEqual(tokens(d), [kept + whole / 2, pruned])
            levels = d.get("/metrics/flops").json()["tokens"]
            self.assertEqual(sum(level["pruned"] for level in levels.values()), pruned)
            for level in levels.values():
                self.assertAlmostEqual(level["pruned_ratio"],
                                       level["pruned"] / (level["kept"] + level["pruned"]))

    def test_gauges_while_it_runs_and_after(self):
        with Daemon(max_active=1) as d:
            estimate = d.post("/v1/estimate", SMALL).json()["flops"]["executed"]
            with d.start():
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
                began = time.monotonic()
                waiting = [d.start(SMALL) for _ in range(3)]
                wait_until(lambda: d.gauge("atedm_queue_depth") == 3, "three wait")
                self.assertEqual(d.gauge("atedm_queue_flops"), 3 * estimate)
                before = d.gauge("atedm_queue_oldest_seconds")
                self.assertTrue(0 < before <= time.monotonic() - began, before)
                wait_until(lambda: d.gauge("atedm_queue_oldest_seconds") > before + 0.2, "it gets older")
                self.assertEqual(d.get("/metrics/flops").json()["queue_flops"], 3 * estimate)
                self.assertEqual(d.post("/v1/estimate", SMALL).json()["queue"],
                                 {"depth": 3, "flops": 3 * estimate, "active": 1})
                for s in waiting:
                    s.close()
            wait_until(lambda: d.gauge("atedm_active_requests") == 0, "all gone")
            metrics = d.metrics()
            self.assertEqual(metrics[series("atedm_queue_depth")], 0)
            self.assertEqual(metrics[series("atedm_queue_flops")], 0)
            self.assertEqual(metrics[series("atedm_queue_oldest_seconds")], 0)
            wait_until(lambda: d.gauge("atedm_requests_total", route="/generate", code="499") == 4,
                       "four went away")
            self.assertEqual(d.gauge("atedm_queue_rejected_total", reason="client_gone"), 4)


if __name__ == "__main__":
    unittest.main()
