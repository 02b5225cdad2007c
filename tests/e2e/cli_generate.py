#!/usr/bin/env python3
"""`atedm generate` as a user runs it: files, settings in them, reports, dumps, refusals."""
import json
import os
import unittest
import unittest.mock

from cli_common import MODEL, ROOT, CommandTest, read_png, read_safetensors

FAST = ("--model", MODEL, "--backend", "cpu", "--dtype", "f32", "--prompt", "a red circle", "--steps", 2,
        "--width", 64, "--height", 48)


class Generate(CommandTest):
    def generate(self, name, *args):
        path = self.folder / name
        report = self.run_json("generate", *FAST, "-o", path, *args)
        return path, report

    def test_picture_with_settings(self):
        path, report = self.generate("a.png", "--seed", 7, "--pruning", "at-edm")
        width, height, pixels, texts = read_png(path)
        self.assertEqual((64, 48), (width, height))
        self.assertEqual(48 * (1 + 64 * 3), len(pixels))
        self.assertGreater(len(set(pixels)), 16, "a picture, not a plane")
        self.assertTrue(texts["parameters"].startswith("a red circle"))
        self.assertIn("Seed: 7", texts["parameters"])
        self.assertIsInstance(json.loads(texts["atedm"]), dict)
        self.assertEqual([{"file": str(path), "seed": 7, "width": 64, "height": 48}],
                         report["images"])
        flops = report["flops"]
        self.assertEqual(flops["executed"],
                         flops["text_encoder"] + flops["unet"] + flops["vae"])
        self.assertAlmostEqual(1 - flops["executed"] / flops["baseline"], flops["saved_ratio"])
        self.assertEqual(2, len(report["latency"]["steps_s"]))
        self.assertEqual("at-edm", report["pruning"]["preset"])
        self.assertEqual([], report["warnings"])

    def test_same_seed_same_bytes(self):
        one, _ = self.generate("a.png", "--seed", 7)
        two, _ = self.generate("b.png", "--seed", 7)
        other, _ = self.generate("c.png", "--seed", 8)
        self.assertEqual(one.read_bytes(), two.read_bytes())
        self.assertNotEqual(read_png(one)[2], read_png(other)[2])

    def test_same_bytes_on_any_number_of_threads(self):
        """Of a model with layers that are worth sharing out."""
        made = set()
        for threads in ("1", "2", "3"):
            with unittest.mock.patch.dict(os.environ, OMP_NUM_THREADS=threads):
                self.run_json("generate", "--model", ROOT / "models/demo", "--backend", "cpu", "--prompt", "a red circle", "--seed", 7,
                              "--steps", 2, "--pruning", "at-edm-c", "--guidance-scale", 4, "-o", self.folder / "a.png")
            made.add((self.folder / "a.png").read_bytes())
        self.assertEqual(len(made), 1)

    def test_drawn_seed_is_told(self):
        one, report = self.generate("a.png")
        two, _ = self.generate("b.png", "--seed", report["images"][0]["seed"])
        self.assertEqual(one.read_bytes(), two.read_bytes())

    def test_several_images(self):
        _, report = self.generate("a.png", "--num-images", 3, "--seed", 10)
        self.assertEqual([f"{self.folder}/a-{i}.png" for i in range(3)],
                         [image["file"] for image in report["images"]])
        self.assertEqual([10, 11, 12], [image["seed"] for image in report["images"]])
        single, _ = self.generate("b.png", "--seed", 11)
        self.assertEqual(read_png(self.folder / "a-1.png")[2], read_png(single)[2],
                         "an image does not depend on its batch")

    def test_ratio_0_is_off(self):
        off, _ = self.generate("a.png", "--seed", 7, "--pruning", "off")
        zero, _ = self.generate("b.png", "--seed", 7, "--pruning", '{"ratio": 0}')
        half, _ = self.generate("c.png", "--seed", 7, "--pruning",
                                '{"ratio": 0.5, "schedule": "uniform"}')
        self.assertEqual(read_png(off)[2], read_png(zero)[2])
        self.assertNotEqual(read_png(off)[2], read_png(half)[2])

    def test_text_report(self):
        out = self.run_ok("generate", *FAST, "-o", self.folder / "a.png", "--seed", 3)
        self.assertIn("a.png: 64x48, seed 3", out)
        self.assertIn("TFLOPs", out)

    def test_long_prompt_warns(self):
        path = self.folder / "a.png"
        report = self.run_json("generate", *FAST, "-o", path, "--prompt", "a cat " * 100)
        self.assertEqual(1, len(report["warnings"]))
        self.assertIn("prompt", report["warnings"][0])


class Dump(CommandTest):
    def dump(self, name, *args):
        self.run_ok("generate", *FAST, "-o", self.folder / f"{name}.png", "--dump",
                    self.folder / name, *args)
        return read_safetensors(self.folder / name / "stages.safetensors")

    def test_names_and_shapes(self):
        stages = self.dump("d", "--seed", 1, "--pruning", '{"ratio": 0.5, "schedule": "uniform"}')
        shapes = {name: shape for name, (_, shape, _) in stages.items()}
        dtypes = {name: dtype for name, (dtype, _, _) in stages.items()}
        self.assertEqual([2, 77], shapes["tokens"])
        self.assertEqual([2, 77], shapes["tokens_2"])
        self.assertEqual("I64", dtypes["tokens"])
        self.assertEqual([2, 77], shapes["prompt_embeds"][:2])
        self.assertEqual(2, shapes["pooled_prompt_embeds"][0])
        self.assertEqual([2, 6], shapes["add_time_ids"])
        self.assertEqual([3], shapes["sigmas"])
        self.assertEqual([2], shapes["timesteps"])
        channels, height, width = shapes["latents_init"][1:]
        self.assertEqual(48 * width, 64 * height)
        for step in range(2):
            self.assertEqual([2, channels, height, width], shapes[f"noise_pred.{step}"])
            self.assertEqual([1, channels, height, width], shapes[f"latents.{step}"])
        self.assertEqual([1, 3, 48, 64], shapes["image"])
        kept = [name for name in shapes if name.startswith("kept.")]
        self.assertTrue(kept)
        for name in kept:
            block = name.removeprefix("kept.")
            self.assertEqual("I64", dtypes[name])
            self.assertEqual("I64", dtypes[f"source.{block}"])
            self.assertEqual("F32", dtypes[f"scores.{block}"])
            self.assertEqual(shapes[f"source.{block}"], shapes[f"scores.{block}"])
            self.assertLess(shapes[name][1], shapes[f"source.{block}"][1])

    def test_latents_of_a_dump_start_again(self):
        top = ("--pruning", '{"selection": "top"}')  # where tokens are drawn the seed has a say in that, too
        first = self.dump("d", "--seed", 1, *top)
        again = self.dump("e", "--seed", 2, *top, "--latents", self.folder / "d/stages.safetensors")
        self.assertEqual(first["latents_init"], again["latents_init"])
        self.assertEqual(first["image"], again["image"])

    def test_latents_of_another_size(self):
        self.dump("d", "--seed", 1)
        said = self.run_wrong(1, "generate", *FAST, "-o", self.folder / "a.png", "--width", 128,
                              "--latents", self.folder / "d/stages.safetensors")
        self.assertIn("latents", said)

    def test_latents_of_no_such_file(self):
        said = self.run_wrong(1, "generate", *FAST, "-o", self.folder / "a.png", "--latents",
                              self.folder / "none")
        self.assertIn(f"{self.folder}/none", said)


class Refusals(CommandTest):
    def test_every_wrong_field_at_once(self):
        said = self.run_wrong(2, "generate", *FAST, "-o", self.folder / "a.png", "--steps", 0,
                              "--width", 63, "--guidance-scale", 31, "--pruning", '{"ratio": 1.5}',
                              "--sampler", "none")
        for name in ("--steps", "--width", "--guidance-scale", "--pruning/ratio", "--sampler"):
            self.assertIn(f"atedm generate: {name}: ", said)

    def test_wrong_pruning(self):
        said = self.run_wrong(2, "generate", *FAST, "-o", self.folder / "a.png", "--pruning",
                              '{"ratio": 1.5, "tua": 1}')
        self.assertIn("--pruning/ratio", said)
        self.assertIn("--pruning/tua", said)

    def test_a_plan_that_the_model_does_not_allow(self):
        for pruning in ('{"flops_budget": 0.01}', '{"phases": [{"until": 1, "ratio": 0.5, "skip": ["up.9.9"]}]}'):
            said = self.run_wrong(2, "generate", *FAST, "-o", self.folder / "none/a.png", "--pruning", pruning)
            self.assertIn("atedm generate: --pruning: ", said)  # before it finds that the folder is not there

    def test_no_model(self):
        said = self.run_wrong(1, "generate", "--model", self.folder / "none", "--prompt", "a", "-o",
                              self.folder / "a.png")
        self.assertIn("none", said)

    def test_no_folder_for_the_picture(self):
        self.run_wrong(1, "generate", *FAST, "-o", self.folder / "none/a.png")

    def test_wrong_backend_and_dtype(self):
        self.assertIn("backend", self.run_wrong(1, "generate", *FAST, "-o", self.folder / "a.png",
                                                "--backend", "tpu"))
        self.assertIn("dtype", self.run_wrong(1, "generate", *FAST, "-o", self.folder / "a.png",
                                              "--dtype", "f8"))

    def test_deadline(self):
        said = self.run_wrong(1, "generate", *FAST, "-o", self.folder / "a.png", "--steps", 150,
                              "--deadline-s", 0.001)
        self.assertIn("deadline", said)
        self.assertFalse((self.folder / "a.png").exists())

    def test_prompt_that_is_not_utf8(self):
        said = self.run_wrong(2, "generate", *FAST, "-o", self.folder / "a.png", "--prompt",
                              "a\udcffb")
        self.assertIn("--prompt", said)


if __name__ == "__main__":
    unittest.main()
