#!/usr/bin/env python3
"""The other commands of atedm: help and versions, inspect, mkmodel, key, bench step."""
import hashlib
import json
import os
import shutil
import subprocess
import unittest

from cli_common import ATEDM, MODEL, ROOT, CommandTest, read_png

COMMANDS = (("generate",), ("request",), ("inspect",), ("mkmodel",), ("bench",), ("bench", "step"), ("bench", "serve"))


class Everywhere(CommandTest):
    def test_help(self):
        self.assertIn("generate", self.run_ok("--help"))
        for command in COMMANDS:
            with self.subTest(command=command):
                out = self.run_ok(*command, "--help")
                self.assertIn(f"usage: atedm {' '.join(command)}", out)

    def test_version(self):
        version = self.run_ok("--version")
        self.assertRegex(version, r"^atedm \d+\.\d+\.\d+\n$")
        for command in COMMANDS:
            with self.subTest(command=command):
                self.assertEqual(version, self.run_ok(*command, "--version"))

    def test_usage_errors(self):
        self.run_wrong(2)
        self.assertIn("no command", self.run_wrong(2, "paint"))
        for command in COMMANDS:
            with self.subTest(command=command):
                self.run_wrong(2, *command, "--no-such-option")
                self.assertIn("--help", self.run_wrong(2, *command))


    def test_output_that_goes_nowhere(self):
        picture = str(self.folder / "picture.png")
        generate = ("generate", "--model", MODEL, "--prompt", "a", "--steps", "1", "--seed", "1", "-o", picture)
        for command in (("--help",), ("--version",), ("generate", "--help"), ("key", "--name", "x"), ("inspect", MODEL),
                        ("inspect", MODEL, "--json"), generate):
            for nowhere in (">/dev/full", ">&-"):
                with self.subTest(command=command, nowhere=nowhere):
                    result = subprocess.run(["sh", "-c", f'exec "$@" {nowhere}', "sh", *map(str, (ATEDM, *command))],
                                            stderr=subprocess.PIPE, check=False)
                    self.assertEqual(result.returncode, 1)
                    self.assertTrue(result.stderr.startswith(b"atedm"), result.stderr)
        read_png(picture)  # it is whole nevertheless


class Backend(CommandTest):
    """What --backend auto says where a GPU's backend is there and does not work."""

    def generate(self, program, **environment):
        return subprocess.run((program, "generate", "--model", MODEL, "--prompt", "x", "--width", "64", "--height", "64", "--steps", "1",
                               "--backend", "auto", "-o", self.folder / "x.png"), capture_output=True, text=True, timeout=600,
                              check=False, env=os.environ | environment)

    def test_an_installed_file_that_does_not_load_is_told(self):
        program = self.folder / "bin/atedm"
        program.parent.mkdir()
        shutil.copy(ATEDM, program)
        if not os.path.exists("/proc/driver/nvidia/version"):
            self.assertEqual("", self.generate(program).stderr)
        broken = self.folder / "lib/atedmd/atedm-cuda.so"
        broken.parent.mkdir(parents=True)
        broken.write_text("no shared object", encoding="utf-8")
        result = self.generate(program)
        self.assertEqual(0, result.returncode, result.stderr)
        self.assertIn("no GPU is used: the cuda backend does not load", result.stderr)
        self.assertIn("atedm-cuda.so", result.stderr)

    def test_a_named_file_that_is_not_there_is_told(self):
        result = self.generate(ATEDM, ATEDM_CUDA_BACKEND=str(self.folder / "none.so"))
        self.assertEqual(0, result.returncode, result.stderr)
        self.assertIn("none.so", result.stderr)


class Inspect(CommandTest):
    def test_model_on_disk(self):
        report = self.run_json("inspect", MODEL)
        self.assertIsInstance(report, dict)
        self.assertIn("a", self.run_ok("inspect", MODEL))

    def test_sdxl(self):
        # The figure of the paper's baseline: 6.7 TFLOPs.
        self.assertIn("6.76", self.run_ok("inspect", "--arch", "sdxl-base"))

    def test_no_model(self):
        self.assertIn("none", self.run_wrong(1, "inspect", self.folder / "none"))


class MakeModel(CommandTest):
    def make(self, name, *args):
        return self.run_json("mkmodel", "--arch", ROOT / "config/arch-tiny.json", *args, self.folder / name)

    def files(self, name):
        folder = self.folder / name
        return {path.relative_to(folder): path.read_bytes()
                for path in folder.rglob("*") if path.is_file()}

    def test_model_that_generates(self):
        report = self.make("m", "--seed", 3, "--dtype", "bf16")
        self.assertEqual(("bf16", 3), (report["dtype"], report["seed"]))
        self.assertIn("model_index.json", map(str, self.files("m")))
        self.run_ok("generate", "--model", self.folder / "m", "--prompt", "a", "--steps", 1, "-o",
                    self.folder / "a.png")
        self.assertEqual((128, 128), read_png(self.folder / "a.png")[:2])

    def test_same_arguments_same_bytes(self):
        self.make("a", "--seed", 3)
        self.make("b", "--seed", 3)
        self.make("c", "--seed", 4)
        self.assertEqual(self.files("a"), self.files("b"))
        self.assertNotEqual(self.files("a"), self.files("c"))

    def test_no_such_architecture(self):
        self.run_wrong(1, "mkmodel", "--arch", self.folder / "none.json", "--seed", 1,
                       self.folder / "m")
        self.assertFalse((self.folder / "m").exists())

    def test_wrong_options(self):
        for wrong in (("--seed", -1), ("--dtype", "f8"), ("--dtype", "auto")):
            with self.subTest(wrong=wrong):
                self.run_wrong(2, "mkmodel", "--arch", "sdxl-base", *wrong, self.folder / "m")


class Key(CommandTest):
    def test_key_and_entry(self):
        seen = set()
        for args in ((), ("--name", "a.B_9-"), ("--name", "n" * 64)):
            report = self.run_json("key", *args)
            self.assertRegex(report["key"], r"^atedm_[0-9a-f]{64}$")
            digest = hashlib.sha256(report["key"].encode()).hexdigest()
            name = args[1] if args else f"key-{digest[:8]}"
            self.assertEqual({"name": name, "hash": f"sha256:{digest}"}, report["entry"])
            seen.add(report["key"])
        self.assertEqual(3, len(seen))

    def test_text(self):
        key, entry = self.run_ok("key", "--name", "alice").splitlines()
        digest = hashlib.sha256(key.encode()).hexdigest()
        self.assertEqual({"name": "alice", "hash": f"sha256:{digest}"}, json.loads(entry))

    def test_help_and_wrong_options(self):
        self.assertIn("usage: atedm key", self.run_ok("key", "--help"))
        self.assertEqual(self.run_ok("--version"), self.run_ok("key", "--version"))
        for wrong in (("--name", ""), ("--name", "a b"), ("--name", "n" * 65), ("more",), ("--no-such-option",)):
            with self.subTest(wrong=wrong):
                self.assertIn("--help", self.run_wrong(2, "key", *wrong))


class BenchStep(CommandTest):
    ARGS = ("bench", "step", "--model", MODEL, "--size", "64x48", "--repeat", 1, "--backend", "cpu")

    def test_report(self):
        report = self.run_json(*self.ARGS, "--steps", 10, "--batch", 1, "--batch", 2)
        stages = [row["stage"] for row in report["stages"]]
        self.assertEqual("gemm", stages[0])
        self.assertEqual("gemm", stages[-1])
        self.assertEqual({"gemm", "text", "unet", "vae"}, set(stages))
        unet = [row for row in report["stages"] if row["stage"] == "unet"]
        for batch in (1, 2):
            rows = [row for row in unet if row["batch"] == batch and row["pruning"] == "at-edm"]
            self.assertEqual([(0, 3), (3, 7)], [(r["first_step"], r["steps"]) for r in rows],
                             "the phases of the plan")
        off = {r["batch"]: r["flops"] for r in unet if r["pruning"] == "off"}
        self.assertEqual(2 * off[1], off[2])
        for row in report["stages"]:
            self.assertGreater(row["min_s"], 0)
            self.assertGreaterEqual(row["median_s"], row["min_s"])
            self.assertAlmostEqual(row["flops"] / row["min_s"] / row["flops_per_s"], 1, 5)
        self.assertGreater(report["peak_memory_bytes"], 1 << 20)

    def test_masks_of_guidance(self):
        own = '{"preset": "at-edm", "masks": "own"}'
        report = self.run_json(*self.ARGS, "--stages", "unet,loop", "--steps", 10, "--batch", 1, "--batch", 2, "--pruning", "at-edm",
                               "--pruning", own)
        overhead = {(row["stage"], row["batch"], row["pruning"]): row["overhead_flops"] for row in report["stages"]
                    if row["stage"] == "loop" or row["stage"] == "unet" and row["first_step"] > 0}
        for stage, pair in (("unet", 2), ("loop", 1)):
            self.assertGreater(overhead[stage, pair, "at-edm"], 0)
            self.assertEqual(2 * overhead[stage, pair, "at-edm"], overhead[stage, pair, own], "two halves, one choice")
        self.assertEqual(overhead["unet", 1, own], overhead["unet", 1, "at-edm"], "nobody to follow")

    def test_table(self):
        out = self.run_ok(*self.ARGS, "--stages", "unet", "--pruning", "off")
        self.assertIn("% of gemm", out)
        self.assertNotIn("vae ", out)

    def test_ceilings_and_loops(self):
        report = self.run_json(*self.ARGS, "--stages", "ceilings,unet,loop", "--matrix", 64, "--copy", 1, "--ops",
                               "--images", 1, "--images", 2, "--steps", 3, "--pruning", "off")
        rows = {row["stage"]: row for row in report["stages"]}
        self.assertEqual(["gemm", "copy", "matrix", "wait", "unet", "loop", "loop", "gemm"],
                         [row["stage"] for row in report["stages"]])
        self.assertEqual(2 * 64 ** 3, rows["matrix"]["flops"])
        self.assertAlmostEqual(2 * 64 ** 3 / rows["matrix"]["min_s"] / report["matrix_flops_per_s"], 1, 5)
        self.assertAlmostEqual(4 * 2 ** 20 / rows["copy"]["min_s"] / report["copy_bytes_per_s"], 1, 5)
        self.assertEqual(rows["wait"]["min_s"], report["wait_s"])
        one, two = [row for row in report["stages"] if row["stage"] == "loop"]
        self.assertEqual((1, 2, 3), (one["batch"], two["batch"], two["steps"]))
        self.assertEqual(3 * rows["unet"]["flops"], one["flops"])  # an image is two samples, as the evaluation has
        self.assertEqual(2 * one["flops"], two["flops"])
        self.assertNotIn("ops", one)
        rates = max(report["matrix_flops_per_s"], report["stages"][0]["flops_per_s"]), report["copy_bytes_per_s"]
        for op in rows["unet"]["ops"]:
            self.assertGreater(op["bytes"], 0)
            self.assertGreaterEqual(op["floor_s"] * 1.001, max(op["flops"] / rates[0], op["bytes"] / rates[1]))
            self.assertLessEqual(op["floor_s"], 1.001 * (op["flops"] / rates[0] + op["bytes"] / rates[1]))
        self.assertIn("is the floor", self.run_ok(*self.ARGS, "--stages", "ceilings,vae", "--matrix", 64, "--copy", 1, "--ops"))

    # What an evaluation has to do, without doing it.
    DRY = ("bench", "step", "--arch", "sdxl-base", "--backend", "dry", "--dtype", "bf16", "--size", "1024x1024")
    RATES = (989e12, 4.8e12)
    RATES_TEXT = "989e12,4.8e12"

    def test_dry(self):
        report = self.run_json(*self.DRY, "--rates", self.RATES_TEXT, "--pruning", "off", "--pruning", "at-edm-c",
                               "--stages", "text,unet,loop,vae", "--ops")
        self.assertEqual(self.RATES, (report["matrix_flops_per_s"], report["copy_bytes_per_s"]))
        self.assertLess(report["peak_memory_bytes"], 256 << 20, "no weights")
        self.assertEqual(["text"] + 3 * ["unet"] + 2 * ["loop"] + ["vae"], [row["stage"] for row in report["stages"]])
        for row in report["stages"]:
            with self.subTest(stage=row["stage"], pruning=row.get("pruning"), first=row.get("first_step")):
                self.assertEqual(row["flops"] + row["overhead_flops"], sum(op["flops"] for op in row["ops"]))
                for op in row["ops"]:
                    self.assertGreater(op["calls"], 0)
                    self.assertGreater(op["bytes"], 0)
                    by_flops, by_bytes = op["flops"] / self.RATES[0], op["bytes"] / self.RATES[1]
                    # Of each call the larger one: between the larger sum and both sums.
                    self.assertGreaterEqual(op["floor_s"] * (1 + 1e-6), max(by_flops, by_bytes))
                    self.assertLessEqual(op["floor_s"], (1 + 1e-6) * (by_flops + by_bytes))
                    if not op["flops"]:
                        self.assertAlmostEqual(1, op["floor_s"] / by_bytes, 6)
                self.assertAlmostEqual(1, row["floor_s"] / sum(op["floor_s"] for op in row["ops"]), 6)
                self.assertEqual([op["floor_s"] for op in row["ops"]], sorted((op["floor_s"] for op in row["ops"]), reverse=True))
                for part in (row, *row["ops"]):
                    self.assertFalse({"min_s", "median_s", "flops_per_s", "share_of_gemm", "seconds"} & set(part), "nothing was timed")
        self.assertFalse({"gemm_flops_per_s", "load_unet_s", "repeat", "wait_s"} & set(report))
        self.floors_of_plans([row for row in report["stages"] if row["stage"] != "text"])

    def floors_of_plans(self, rows):
        off, *phases = [row for row in rows if row["stage"] == "unet"]
        self.assertEqual([(0, 9), (9, 21)], [(row["first_step"], row["steps"]) for row in phases])
        self.assertTrue(off["floor_s"] > phases[0]["floor_s"] > phases[1]["floor_s"])
        self.assertAlmostEqual(13522.5, off["flops"] * 1e-9, 1)  # two of the paper's 6.76 TFLOP
        loops = [row for row in rows if row["stage"] == "loop"]
        for loop, evaluations in zip(loops, ([off], phases)):
            self.assertEqual(sum(row["steps"] * row["flops"] for row in evaluations), loop["flops"])
            steps = sum(op["floor_s"] for op in loop["ops"] if op["op"] in ("scale_input", "sampler_step"))
            self.assertGreater(steps, 0)
            self.assertAlmostEqual(1, sum(row["steps"] * row["floor_s"] for row in evaluations) / (loop["floor_s"] - steps), 6)

    def test_dry_as_timed(self):
        """As on the reference, where weights lie without padding."""
        rows = {}
        for backend in ("ref", "dry"):
            report = self.run_json(*self.ARGS, "--stages", "unet", "--ops", "--dtype", "f32", "--backend", backend)
            rows[backend] = [row for row in report["stages"] if row["stage"] == "unet"]
            if backend == "ref":
                self.assertEqual(2 * 64 * 1280**2, report["stages"][0]["flops"], "few rows: it is slow")
        for counted, timed in zip(rows["dry"], rows["ref"], strict=True):
            for key in ("flops", "overhead_flops", "scratch_bytes"):
                self.assertEqual(timed[key], counted[key])
            ops = [{op["op"]: (op["calls"], op["flops"], op["bytes"]) for op in row["ops"]} for row in (counted, timed)]
            self.assertEqual(*ops)

    def test_dry_table(self):
        out = self.run_ok(*self.DRY, "--rates", self.RATES_TEXT, "--pruning", "at-edm-c", "--stages", "unet", "--ops")
        self.assertIn("nothing is run", out)
        self.assertRegex(out, r"\nunet +1024x1024 +2 +at-edm-c +0-8 +- +- +0\.\d{6} .* - +- +\d+\n")
        self.assertRegex(out, r"\n    linear +\d+ calls +[\d.]+ GFLOP +[\d.]+ GB +[\d.]+ ms\n")
        self.assertRegex(out, r"mean floor of a UNet evaluation of 30 steps 0\.\d{6} s")
        self.assertIn("floors: at 989000.0 GFLOP/s, 4800.0 GB/s", out)
        self.assertNotRegex(out, "nan|inf|loading")

    def test_dry_without_rates(self):
        args = (*self.DRY, "--stages", "unet")
        report = self.run_json(*args, "--ops")
        self.assertNotIn("matrix_flops_per_s", report)
        for row in report["stages"]:
            self.assertNotIn("floor_s", row)
            for op in row["ops"]:
                self.assertNotIn("floor_s", op)
        self.assertRegex(self.run_ok(*args, "--ops"), r"\n    linear +\d+ calls .* GB +- ms\n")
        report = self.run_json(*args, "--rates", self.RATES_TEXT)
        for row in report["stages"]:
            self.assertGreater(row["floor_s"], 0)
            self.assertNotIn("ops", row)

    def test_dry_refusals(self):
        for wrong in ("0,1", "1,0", "-1,1", "1", "1,", ",1", "1,2,3", "nan,1", "1,inf", "1e25,1", "1,0.5", "x,1", "1" * 40 + ",1"):
            with self.subTest(wrong=wrong):
                self.assertIn("--rates", self.run_wrong(2, *self.DRY, "--rates", wrong))
        self.assertIn("no ceilings", self.run_wrong(2, *self.DRY, "--stages", "unet,ceilings"))
        self.assertIn("--backend dry only", self.run_wrong(2, *self.ARGS, "--rates", self.RATES_TEXT))
        self.assertIn("cuda:DEVICE or ref", self.run_wrong(1, "generate", "--model", MODEL, "--prompt", "a", "--backend", "dry",
                                                            "-o", self.folder / "a.png"))

    def test_wrong_options(self):
        for wrong in (("--size", "63x64"), ("--batch", 0), ("--stages", "paint"), ("--stages", "unet,"), ("--images", 33),
                      ("--matrix", 65537), ("--copy", 0), ("--pruning", "none"), ("--repeat", "x")):
            with self.subTest(wrong=wrong):
                self.run_wrong(2, *self.ARGS, *wrong)


if __name__ == "__main__":
    unittest.main()
