#!/usr/bin/env python3
"""The device suite and the GPU benchmarks, as far as they run without a GPU: on the emulated backend, and at toy sizes.

The environment says where they are built: ATEDM_BUILD.
"""
import argparse
import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

import device
import figures
import markdown
import pack
import timeline

BUILD = pathlib.Path(os.environ["ATEDM_BUILD"])
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
import environment  # noqa: E402, F401  (drops what the shell exports: tests must not depend on it)

# Hides a GPU of this machine from this test.
HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}


def run(program, *args, **more):
    return subprocess.run((sys.executable, HERE / program, *map(str, args)), capture_output=True, text=True, check=False,
                          env={**os.environ, **HIDDEN, **more})


def wait_for(condition, limit_s=60):
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit_s} s")
        time.sleep(0.05)


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.output = self.folder / "out.json"

    def results(self):
        return json.loads(self.output.read_text(encoding="utf-8"))


class Check(Folder):
    def check(self, *args, **more):
        return run("check_gpu.py", "--build", BUILD, "--no-build", "--emulated", "-o", self.output, *args, **more)

    def test_without_a_device(self):
        for program in ("check_gpu.py", "bench_gpu.py"):
            done = run(program, "-o", self.output)
            self.assertEqual(done.returncode, 77, done.stdout + done.stderr)
            self.assertRegex(done.stdout, r"^skipped: the \S+.* needs an NVIDIA GPU: .+\n$")
            self.assertFalse(self.output.exists())

    def test_names(self):
        names = run("check_gpu.py", "--list").stdout.splitlines()
        self.assertEqual(len(set(names)), len(names))
        for part in ("parity f32", "parity bf16", "parity f16", "full size bf16", "stages", "golden", "invariance f32",
                     "own convolutions bf16", "invariance bf16", "memcheck bf16", "racecheck bf16", "soak",
                     "hopper attention bf16", "hopper rank_tokens full size f16", "hopper invariance",
                     "hopper attention memcheck", "hopper rank_tokens racecheck", "portable attention large bf16", "tried linear full size f16",
                     "tried invariance",
                     "hopper conv large f16", "hopper conv full size bf16", "hopper conv racecheck", "hopper linear large f16",
                     "hopper linear full size bf16", "hopper linear memcheck"):
            self.assertIn(part, names)

    def test_hopper(self):
        only = ("--only", "hopper attention bf16", "hopper rank_tokens bf16", "hopper conv large bf16", "hopper linear large bf16", "parity f16",
                "--iterations", 1, "--jobs", 2)
        done = self.check(*only, ATEDM_EMULATED_SM="90")
        self.assertIn("5 passed, 0 failed, 0 skipped", done.stdout)
        self.assertEqual([step["name"] for step in self.results()["steps"]],
                         ["parity f16", "hopper attention bf16", "hopper rank_tokens bf16", "hopper conv large bf16",
                          "hopper linear large bf16"])
        done = self.check(*only)
        self.assertIn("1 passed, 0 failed, 4 skipped", done.stdout)
        self.assertIn("the device is of compute capability 8, not 9", done.stdout)

    def test_side_by_side(self):
        steps = device.Steps()
        both = (sys.executable, "-c", "import pathlib, sys, time\nmine, other = map(pathlib.Path, sys.argv[1:])\nmine.touch()\n"
                "while not other.exists():\n    time.sleep(0.01)")  # neither ends before the other has started
        names = {"b": ("one", "two"), "a": ("two", "one")}
        steps.side_by_side(lambda step: steps.run(step[0], (*both, *(self.folder / file for file in step[1])), 60),
                           list(names.items()), 2)
        self.assertEqual([(result["name"], result["result"]) for result in steps.results], [("b", "passed"), ("a", "passed")])

    def test_a_program_that_is_terminated_has_written_its_results(self):
        results, pid = self.folder / "results.json", self.folder / "pid"
        sleeper = f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
        program = (f"import pathlib, sys\nsys.path.insert(0, {str(HERE)!r})\nimport device\ndevice.interrupt_when_terminated()\n"
                   f"steps = device.Steps(save=lambda: device.write_json(pathlib.Path({str(results)!r}), steps.results))\n"
                   f"steps.run('one', (sys.executable, '-c', ''), 60)\nsteps.run('two', (sys.executable, '-c', {sleeper!r}), 600)")
        with subprocess.Popen((sys.executable, "-c", program), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            wait_for(lambda: pid.exists() and pid.read_text())
            running.terminate()
            self.assertNotEqual(running.wait(60), 0)
        self.assertEqual([step["name"] for step in json.loads(results.read_text())], ["one"])
        wait_for(lambda: not pathlib.Path(f"/proc/{pid.read_text()}").exists())

    def test_steps_that_pass(self):
        done = self.check("--only", "parity bf16", "invariance bf16", "--iterations", 2, ATEDM_TEST_CROWD="6", ATEDM_TEST_PATIENCE="600")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("2 passed, 0 failed, 0 skipped", done.stdout)
        results = self.results()
        self.assertEqual([step["name"] for step in results["steps"]], ["parity bf16", "invariance bf16"])
        for step in results["steps"]:
            self.assertEqual(step["result"], "passed")
            self.assertGreater(step["seconds"], 0)
        self.assertIn("parity --backend cuda --required --dtype bf16", results["steps"][0]["command"])
        self.assertEqual(results["device"]["name"], "emulated")
        self.assertRegex(results["date"], r"^\d{4}-\d\d-\d\d$")
        self.assertIn("--only parity bf16", results["command"])
        self.assertIn("commit", results)

    def test_a_failure_hides_nothing(self):
        done = self.check("--only", "parity f", "--iterations", 1, ATEDM_EMULATED_FAIL_AFTER="20")
        self.assertEqual(done.returncode, 1)
        self.assertIn("0 passed, 2 failed, 0 skipped", done.stdout)
        self.assertEqual([step["result"] for step in self.results()["steps"]], ["failed", "failed"])

    def test_time_limit(self):
        done = self.check("--only", "parity f", "--iterations", 100000, "--limits", 0.0001)
        self.assertEqual(done.returncode, 1)
        self.assertEqual([step["result"] for step in self.results()["steps"]], ["timed out", "timed out"])
        self.assertIn("not within 0.18 s", done.stdout)

    def test_failures_are_kept(self):
        steps = device.Steps()
        many = "print('FAIL early'); print('     replay: early')\nfor i in range(50):\n    print('ok', i)\nexit(1)"
        steps.run("one", (sys.executable, "-c", many), 60)
        self.assertEqual(steps.results[0]["failures"], ["FAIL early", "     replay: early"])
        self.assertEqual(steps.results[0]["last_line"], "ok 49")

    def test_results_name_no_folders_of_the_machine(self):
        steps = device.Steps()
        steps.run("one", (sys.executable, "-c", f"print('{device.ROOT}/some/file')"), 60)
        self.assertTrue(steps.results[0]["command"].startswith(pathlib.Path(sys.executable).name + " -c "))
        self.assertEqual(steps.results[0]["last_line"], "some/file")
        self.assertEqual(device.without_folders("/somewhere/out.json"), "out.json")
        self.assertEqual(device.without_folders(str(device.ROOT / "tests/e2e")), "tests/e2e")

    def test_skipped_steps(self):
        steps = device.Steps()
        steps.run("by status", (sys.executable, "-c", "exit(77)"), 60)
        steps.run("by what it says", (sys.executable, "-c", "print('Device not supported'); exit(1)"), 60,
                  skip_lines=("Device not supported",))
        steps.run("no program", (self.folder / "none",), 60)
        self.assertEqual([step["result"] for step in steps.results], ["skipped", "skipped", "failed"])
        self.assertFalse(steps.all_good())

    def test_other_devices(self):
        self.assertTrue(device.may_be_hopper({"compute_capability": "9.0"}))
        self.assertTrue(device.may_be_hopper(device.emulated_device()))
        self.assertFalse(device.may_be_hopper({"compute_capability": "8.0"}))

    def test_nothing_but_skipped_is_not_good(self):
        steps = device.Steps()
        steps.skip("one", "not here")
        self.assertFalse(steps.all_good())


class Pack(Folder):
    def test_runs_where_it_is_unpacked(self):
        """With the archive's libraries, and none of the build folder's."""
        archive, build = self.folder / "pack.tar.xz", self.folder / "elsewhere"
        done = run("pack.py", "--build", BUILD, "--no-build", "--emulated", "-o", archive)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertLess(archive.stat().st_size, 64 << 20)
        build.mkdir()
        subprocess.check_call(("tar", "-xJf", archive, "-C", build))
        environment = {**os.environ, **device.linker_environment(build)}
        for program in ("server/atedmd", "tests/parity/parity"):
            loaded = subprocess.check_output(("ldd", build / program), text=True, env=environment)
            self.assertIn(f"libdnnl.so.2 => {build}/lib/libdnnl.so.2 ", loaded)
            self.assertIn("libc.so.6 => /lib", loaded)
            self.assertNotIn(str(BUILD), loaded)
        done = run("check_gpu.py", "--build", build, "--no-build", "--emulated", "-o", self.output, "--only", "parity bf16",
                   "invariance bf16", "--iterations", 1, ATEDM_TEST_CROWD="6", ATEDM_TEST_PATIENCE="600")
        self.assertIn("2 passed, 0 failed, 0 skipped", done.stdout)
        # A program of the build folder would be named relative to the project's root.
        self.assertTrue(self.results()["steps"][0]["command"].startswith("parity --backend cuda"))

    def test_the_machine_brings_what_is_its_own(self):
        own = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libcublasLt.so.13", "libcudart.so.13", "libcuda.so.1",
               "libnvidia-ml.so.1", "libnvrtc.so.13")
        self.assertEqual([name for name in own if not pack.OWN.match(name)], [])
        packed = ("libcrypto.so.3", "libcurl.so.4", "libmicrohttpd.so.12", "libnettle.so.8", "libdnnl.so.2", "libgomp.so.1")
        self.assertEqual([name for name in packed if pack.OWN.match(name)], [])


class Timeline(Folder):
    # Two launches of graph 3, one of graph 4, and something outside graphs. Microseconds.
    @staticmethod
    def records(*rows):
        return [timeline.Record(1000 * start, 1000 * end, launch, graph, 7, 1, 32, name) for start, end, launch, graph, name in rows]

    def test_the_last_launch_of_each_graph(self):
        found = timeline.evaluations(self.records((0, 1, 1, 3, "a"), (1, 2, 2, 4, "b"), (3, 4, 5, 3, "c"), (4, 5, 5, 3, "d"),
                                                  (6, 7, 6, 0, "e")))
        self.assertEqual([[record.name for record in nodes] for nodes in found], [["b"], ["c", "d"]])

    def test_arithmetic(self):
        found = timeline.summary(self.records((10, 20, 1, 3, "a"), (15, 30, 1, 3, "b"), (34, 40, 1, 3, "a"), (40, 40, 1, 3, "d"),
                                              (41, 42, 1, 3, "_ZN12_GLOBAL__N_14rankI6__halfEEvPT_")))
        self.assertEqual((found["records"], found["gaps"]), (5, 2))
        for key, expected in (("span_s", 32), ("idle_s", 5), ("beside_s", 5)):
            self.assertAlmostEqual(1e6 * found[key], expected, msg=key)
        self.assertEqual([(round(1e6 * gap["seconds"]), gap["before"]) for gap in found["longest_gaps"]], [(4, "a"), (1, "rank")])
        self.assertEqual([(k["name"], k["calls"], round(1e6 * k["seconds"]), round(1e6 * k["alone_s"])) for k in found["kernels"]],
                         [("a", 2, 16, 11), ("b", 1, 15, 10), ("rank", 1, 1, 1), ("d", 1, 0, 0)])
        text = timeline.text(found)
        self.assertIn("5 records in 32.0 us: idle 5.0 us in 2 gaps, several at a time 5.0 us", text)
        self.assertIn("idle 4.0 us before a", text)

    def test_names(self):
        for mangled, name in (("_Z4rankILi2EEvPfS0_", "rank"), ("_ZN12_GLOBAL__N_116attention_kernelI13__nv_bfloat16EEv14attention_call",
                              "attention_kernel"), ("nvjet_hsh_128x256_64x4", "nvjet_hsh_128x256_64x4"), ("memset", "memset"), ("_Z", "_Z")):
            self.assertEqual(timeline.short_name(mangled), name)

    def test_library(self):
        program = BUILD / "tests/device/timeline-test"
        if not program.exists():
            self.skipTest("there is no CUPTI here")
        done = subprocess.run((program,), env={"ATEDM_TIMELINE": str(self.output)}, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with self.output.open(encoding="utf-8") as lines:
            self.assertEqual(timeline.read(lines), [timeline.Record(1000, 3000000000000, 7, 5, 13, 24, 64, "_Z4rankILi2EEvPfS0_"),
                                                    timeline.Record(10, 20, 8, 0, 14, 0, 0, "memcpy"),
                                                    timeline.Record(30, 40, 9, 5, 15, 0, 0, "memset")])
        done = subprocess.run((program,), env={"ATEDM_TIMELINE": "/nowhere/a"}, capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (1, "timeline: ATEDM_TIMELINE names no file that can be written\n"))

    def test_without_a_device(self):
        done = run("timeline.py", **HIDDEN)
        self.assertEqual(done.returncode, 77, done.stdout + done.stderr)

    def test_plans_are_measured_one_by_one(self):
        """With a script in the benchmark's place, which fails for one of them."""
        atedm = self.folder / "cli/atedm"
        atedm.parent.mkdir()
        atedm.write_text('#!/bin/sh\ncase "$*" in *broken*) exit 1;; esac\n'
                         'printf "0,2000,1,3,7,1,32,a\\n5000,6000,2,4,7,1,32,b\\n" > "$ATEDM_TIMELINE"\n', encoding="utf-8")
        atedm.chmod(0o755)
        found, saved = [], []
        steps = device.Steps(save=lambda: saved.append(len(found)))
        options = argparse.Namespace(build=self.folder, arch="sdxl-base", batch=4, pruning=["off", "broken", "at-edm-c"], keep=None)
        with contextlib.redirect_stdout(io.StringIO()):
            timeline.measure(options, steps, found)
        self.assertEqual([(e["pruning"], e["batch"], e["kernels"][0]["name"]) for e in found],
                         [("off", 4, "a"), ("off", 4, "b"), ("at-edm-c", 4, "a"), ("at-edm-c", 4, "b")])
        self.assertEqual([step["result"] for step in steps.results], ["passed", "failed", "passed"])
        self.assertEqual(saved, [0, 2, 2, 2, 4])

    def test_records_of_an_earlier_run(self):
        self.output.write_text("0,2000,1,3,7,1,32,a\n1000,3000,1,3,8,1,32,b\n", encoding="utf-8")
        self.assertIn("2 records in 3.0 us: idle 0.0 us in 0 gaps, several at a time 1.0 us", run("timeline.py", "--read", self.output).stdout)


CEILINGS = {"matrix_flops_per_s": 100.0, "copy_bytes_per_s": 10.0, "wait_s": 1.0, "gemm_flops_per_s": 90.0}


def op(name, seconds, calls=1, flops=0, num_bytes=0, least=0.0):
    return {"op": name, "seconds": seconds, "calls": calls, "flops": flops, "bytes": num_bytes, "floor_s": least}


def unet(pruning, steps, seconds, ops, batch=2, flops=1000):
    return {"stage": "unet", "batch": batch, "pruning": pruning, "steps": steps, "median_s": seconds, "min_s": seconds,
            "flops": flops, "overhead_flops": 10, "ops": ops}


class Arithmetic(unittest.TestCase):
    # Two phases of 1 and 3 steps; 1 s of each call is waiting.
    REPORT = {"stages": [
        unet("off", 4, 20.0, [op("linear", 11, flops=500, least=5.0)]),
        unet("at-edm-c", 1, 16.0, [op("linear", 9), op("rank_tokens", 3, 2)], flops=800),
        unet("at-edm-c", 3, 8.0, [op("linear", 5), op("rank_tokens", 4, 2), op("gather_rows", 3)], flops=400),
        unet(figures.RANDOM, 4, 9.0, [op("linear", 9)]),
        {"stage": "loop", "batch": 8, "pruning": "off", "steps": 4, "median_s": 30.0, "min_s": 29.0},
        {"stage": "loop", "batch": 8, "pruning": "at-edm-c", "steps": 4, "median_s": 20.0, "min_s": 19.0}]}

    def test_floor(self):
        self.assertEqual(figures.floor_s(1000, 10, CEILINGS), 10)
        self.assertEqual(figures.floor_s(100, 50, CEILINGS), 5)

    def test_evaluations(self):
        evaluated = figures.evaluations(self.REPORT, CEILINGS)
        off, pruned = evaluated[:2]
        self.assertEqual((off["seconds"], off["floor_s"], off["against_off"]), (20, 5, 1))
        self.assertEqual((pruned["seconds"], pruned["against_off"]), (10, 2))
        self.assertEqual((pruned["flops"], pruned["flops_against_off"]), (500, 2))
        by_name = {entry["op"]: entry for entry in pruned["operations"]}
        self.assertEqual(by_name["linear"]["net_s"], (8 + 3 * 4) / 4)
        self.assertEqual(by_name["rank_tokens"]["net_s"], (1 + 3 * 2) / 4)
        self.assertEqual(by_name["gather_rows"]["net_s"], 3 * 2 / 4)
        self.assertAlmostEqual(sum(entry["share"] for entry in pruned["operations"]), 1)
        self.assertEqual(off["operations"][0]["floor_share"], 0.5)

    def test_pruning_cost(self):
        evaluated = figures.evaluations(self.REPORT, CEILINGS)
        in_order = [{**entry, "seconds": 2 * entry["seconds"]} for entry in evaluated]
        cost = figures.pruning_cost(evaluated, {"in_order_s": in_order}, 2)
        self.assertEqual((cost["evaluation_s"], cost["in_order_s"]), (10, 20))
        self.assertEqual((cost["ranking_s"], cost["ranking_share"]), (1.75, 0.175))
        self.assertEqual((cost["ranking_by_difference_s"], cost["ranking_by_difference_share"]), (1, 0.1))
        self.assertEqual((cost["recovery_s"], cost["recovery_share"]), (1.5, 0.15))
        self.assertIsNone(cost["recovery_by_difference_s"])
        self.assertIsNone(figures.pruning_cost(evaluated, {"in_order_s": []}, 2)["in_order_s"])
        self.assertIsNone(figures.pruning_cost([], {}, 2))

    def test_kernels(self):
        line = {"op": "attention", "size": 1, "case": "x", "seconds": 2.0, "flops": 100, "bytes": 5}
        entry = figures.kernels([line, {**line, "flops": 0}], CEILINGS)
        self.assertEqual((entry[0]["floor_s"], entry[0]["floor_share"], entry[0]["flops_per_s"]), (1, 0.5, 50))
        self.assertEqual((entry[1]["floor_s"], entry[1]["flops_per_s"]), (0.5, None))

    def test_bars(self):
        loops = figures.loops(self.REPORT)
        self.assertEqual((loops[1]["against_off"], loops[1]["images_per_s"]), (1.5, 0.4))
        evaluated = figures.evaluations(self.REPORT, CEILINGS)
        result = {"loops": loops, "evaluations": evaluated, "pruning_cost": [figures.pruning_cost(evaluated, {}, 2)],
                  "pytorch": {"evaluations": [{"mode": "compiled", "batch": 2, "seconds": 16.0}]},
                  "kernels": [{"op": "attention", "size": 1, "flops_per_s": 4e14}],
                  "hopper": {"kernels": [{"op": "conv", "way": "hopper", "size": 1, "flops_per_s": 5e14},
                                         {"op": "attention", "way": "hopper", "size": 1, "flops_per_s": 3e14}]},
                  "requests": [{"kind": "throughput", "pruning": "at-edm-c", "images_per_s": 2.5},
                               {"kind": "latency", "pruning": "at-edm-c", "p50_s": 1.2}]}
        values = {bar["name"]: (bar["value"], bar["met"]) for bar in figures.bars(result)}
        self.assertEqual(values["at-edm-c against off, denoising loop of 8"], (1.5, True))
        self.assertEqual(values["at-edm-c against off, denoising loop of 1"], (None, None))
        self.assertEqual(values["unpruned evaluation of 2 against PyTorch compiled"], (1.25, False))
        self.assertEqual(values["20 steps with guidance, at-edm-c"], (2.5, True))
        self.assertEqual(values["30 steps with guidance, batch 1, at-edm-c"], (1.2, False))
        self.assertEqual(values["attention, heads of 64, 4096 tokens"], (400, True))
        self.assertEqual(values["the same by the Hopper path"], (300, False))
        self.assertEqual(values["G-WPR's share of an evaluation of 2"], (0.175, False))

    def test_all_ways(self):
        entries = [{"op": "conv", "way": way, "case": case, "seconds": seconds, "flops_per_s": 1e12, "batch": 2, "pruning": "off"}
                   for way, case, seconds in (("portable", "a", 3.0), ("portable", "b", 1.0), ("hopper", "a", 2.0), ("tried", "b", 0.5))]
        self.assertEqual(figures.all_ways(entries, "case"), [(entries[0], entries[2], None), (entries[1], None, entries[3])])
        text = markdown.hopper_text({"hopper": {"kernels": entries, "evaluations": [entries[0], entries[2]]}})
        self.assertIn("| conv | a | 3e+06 | 2e+06 |  | 1 | 1 |  | 1.5 |  |", text)
        self.assertIn("| conv | b | 1e+06 |  | 5e+05 | 1 |  | 1 |  | 2 |", text)
        self.assertIn("| conv | 2 | `off` | 3000 | 2000 |  | 1.5 |  |", text)
        self.assertIn("Not measured", markdown.hopper_text({"hopper": None}))


class Bench(Folder):
    # Replaces a Python with torch and diffusers, and records its arguments.
    PYTHON = """#!/bin/sh
echo "$*" >>"$(dirname "$0")/called"
case $* in *"--batch 1 --modes compiled") ;; *) exit 77;; esac
echo '{"versions": {"torch": "0"}, "evaluations": [{"mode": "compiled", "batch": 1, "seconds": 1000.0, "best_s": 999.0, "flops": 7e9}]}'
"""

    def check_pytorch(self, result, text):
        called = (self.folder / "called").read_text(encoding="utf-8")
        self.assertEqual(called.count("\n"), 6)
        self.assertRegex(called, r"pytorch_unet\.py --config \S+/unet/config\.json --size 64 --device cpu --dtype f32 --repeat 2 --batch 1 --modes eager\n")
        met = {bar["name"]: bar["met"] for bar in result["bars"]}
        self.assertTrue(met["unpruned evaluation of 1 against PyTorch compiled"])
        self.assertIsNone(met["unpruned evaluation of 2 against PyTorch compiled"])
        self.assertIn("| compiled | 1 | 7 | 1e+06 | `off` |", text)

    def test_toy(self):
        python = self.folder / "python"
        python.write_text(self.PYTHON, encoding="utf-8")
        python.chmod(0o755)
        done = run("bench_gpu.py", "--toy", "--build", BUILD, "--no-build", "--pytorch", python, "-o", self.output)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        result = self.results()
        for key in ("date", "device", "commit", "command", "settings", "steps", "bars", "pytorch"):
            self.assertIn(key, result)
        self.assertTrue(result["toy"])
        self.check_evaluations(result)
        self.assertEqual([cost["batch"] for cost in result["pruning_cost"]], [2])
        self.assertGreater(result["pruning_cost"][0]["ranking_s"], 0)
        self.assertIsNotNone(result["pruning_cost"][0]["all_iterations_s"])
        self.assertEqual([(e["images"], e["pruning"]) for e in result["loops"]], [(1, "off"), (1, "at-edm-c"), (1, figures.INTERVAL)])
        self.assertEqual({e["op"] for e in result["kernels"]}, {"sampler_step", "attention"})
        for entry in result["kernels"] + result["loops"]:
            self.assertGreater(entry["seconds"], 0)
        self.assertEqual([stage["stage"] for stage in result["stages"]], ["text", "vae"])
        self.assertEqual(len(result["requests"]), 4)
        for entry in result["requests"]:
            self.assertEqual(entry["failed"], 0)
            self.assertGreater(entry["images_per_s"], 0)
        text = self.output.with_suffix(".md").read_text(encoding="utf-8")
        self.assertEqual(text, markdown.text(result))
        self.assertIn("| attention |", text)
        self.assertIn("not measured", text)  # the bars of at-edm-dagger have no value
        self.check_pytorch(result, text)

    def test_piece_by_piece(self):
        command = ("bench_gpu.py", "--toy", "--build", BUILD, "--no-build", "-o", self.output, "--parts")
        self.assertEqual(run(*command, "loops").returncode, 1)  # there are no ceilings to compare with
        self.assertEqual(run(*command, "evaluations").returncode, 0)
        first = self.results()
        self.assertEqual((first["loops"], first["requests"]), ([], []))
        self.assertEqual(run(*command, "loops", "--add").returncode, 0)
        both = self.results()
        self.assertEqual(both["evaluations"], first["evaluations"])
        self.assertEqual([(e["images"], e["pruning"]) for e in both["loops"]], [(1, "off"), (1, "at-edm-c"), (1, figures.INTERVAL)])
        self.assertEqual([step["name"] for step in both["steps"]], ["evaluations", "loops"])
        self.output.write_text(json.dumps({**both, "commit": "another"}), encoding="utf-8")
        done = run(*command, "loops", "--add")
        self.assertIn("is of another device or commit", done.stderr)

    def check_evaluations(self, result):
        for value in result["ceilings"].values():
            self.assertGreater(value, 0)
        self.assertEqual([(e["batch"], e["pruning"]) for e in result["evaluations"]],
                         [(batch, pruning) for batch in (1, 2) for pruning in ("off", "at-edm-c")])
        for entry in result["evaluations"]:
            names = {operation["op"] for operation in entry["operations"]}
            self.assertEqual("rank_tokens" in names, entry["pruning"] != "off")
            self.assertGreater(entry["seconds"], 0)
            # Each call's floor is at least as long as either of these.
            for operation in entry["operations"]:
                either = figures.floor_s(operation["flops"], operation["bytes"], result["ceilings"])
                rates = result["ceilings"]["matrix_flops_per_s"], result["ceilings"]["gemm_flops_per_s"]
                self.assertGreaterEqual(operation["floor_s"] * 1.0001, either * rates[0] / max(rates), operation["op"])
        off = {e["batch"]: e["flops"] for e in result["evaluations"] if e["pruning"] == "off"}
        self.assertEqual(off[2], 2 * off[1])


if __name__ == "__main__":
    unittest.main()
