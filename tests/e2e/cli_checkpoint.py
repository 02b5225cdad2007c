#!/usr/bin/env python3
"""Checkpoints: one file with all of a model, in a folder that has its configs and tokenizers. The pictures are those of
the folder's own weights, whose names in the checkpoint tests/golden/data/checkpoint.json has from diffusers."""
import json
import shutil
import struct
import unittest

from checkpoint import GOLDEN, in_checkpoint, write_safetensors
from cli_common import CommandTest, read_png

WEIGHTS = "*.safetensors*"
REQUEST = ["--prompt", "a red fox in the snow", "--negative-prompt", "rain", "--width", 64, "--height", 48, "--steps", 3,
           "--seed", 7, "--backend", "cpu", "--dtype", "f32"]
ONE = ("F32", [1], struct.pack("<f", 1.0))
# What such files have besides, and nobody asks for.
LEFT_OVER = {
    "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": ("I64", [1], bytes(8)),
    "conditioner.embedders.1.model.logit_scale": ("F32", [], bytes(4)),
    "first_stage_model.encoder.conv_in.bias": ONE,
    "first_stage_model.quant_conv.bias": ONE,
    "model_ema.decay": ONE,
    "denoiser.sigmas": ONE,
}


class Checkpoint(CommandTest):
    def bare_folder(self, model):
        """The model's configs and tokenizers without its weights."""
        folder = self.folder / model
        shutil.copytree(GOLDEN / "models" / model, folder, ignore=shutil.ignore_patterns(WEIGHTS))
        return folder

    def write(self, model, change=None):
        """A checkpoint of the model in its own folder, with another content where `change` makes one."""
        path = self.bare_folder(model) / "fine-tuned.safetensors"
        tensors = in_checkpoint(model) | LEFT_OVER
        if change:
            change(tensors)
        write_safetensors(path, tensors)
        return path

    def picture(self, model, *more):
        """Pixels and settings of a picture."""
        path = self.folder / "picture.png"
        self.run_ok("generate", "--model", model, *REQUEST, *more, "-o", path)
        width, height, pixels, texts = read_png(path)
        return (width, height, pixels), json.loads(texts["atedm"])

    def refused(self, change, model="b"):
        return self.run_wrong(1, "generate", "--model", self.write(model, change), *REQUEST, "-o", self.folder / "p.png")


class Same(Checkpoint):
    def same(self, model):
        wanted, _ = self.picture(GOLDEN / "models" / model)
        found, settings = self.picture(self.write(model))
        self.assertEqual(wanted, found)
        self.assertEqual("fine-tuned", settings["model"])

    def test_as_sdxl(self):
        self.same("b")

    def test_other_stages_and_projections_as_convolutions(self):
        self.same("c")

    def test_places_that_are_not_aligned(self):
        """Everything behind the first tensor is at an odd address."""
        def change(tensors):
            others = dict(tensors)
            tensors.clear()
            tensors["odd"] = ("U8", [1], b"\0")
            tensors.update(others)
        wanted, _ = self.picture(GOLDEN / "models/b")
        found, _ = self.picture(self.write("b", change))
        self.assertEqual(wanted, found)

    def test_a_missing_component_is_the_folder_s(self):
        path = self.write("b", lambda tensors: [tensors.pop(name) for name in list(tensors)
                                                if name.startswith("first_stage_model.")])
        said = self.run_wrong(1, "generate", "--model", path, *REQUEST, "-o", self.folder / "p.png")
        self.assertIn('has nothing under "first_stage_model."', said)
        shutil.copytree(GOLDEN / "models/b/vae", path.parent / "vae", dirs_exist_ok=True)
        self.assertEqual(self.picture(GOLDEN / "models/b")[0], self.picture(path)[0])

    def test_what_it_says_of_its_predictions(self):
        """v_pred stands for v-prediction: a folder whose config says the same makes the same picture."""
        path = self.write("b", lambda tensors: tensors.update({"v_pred": ("F32", [0], b"")}))
        both = self.folder / "both.safetensors"
        other = self.folder / "other"
        shutil.copytree(GOLDEN / "models/b", other)
        config = other / "scheduler/scheduler_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "v_prediction"}))
        plain, _ = self.picture(GOLDEN / "models/b")
        predicted, _ = self.picture(path)
        self.assertNotEqual(plain, predicted)
        self.assertEqual(self.picture(other)[0], predicted)
        write_safetensors(both, in_checkpoint("b") | {"v_pred": ONE, "ztsnr": ONE})
        shutil.move(both, path)
        config.write_text(json.dumps(json.loads(config.read_text()) | {"rescale_betas_zero_snr": True}))
        zero, _ = self.picture(path)
        self.assertNotEqual(predicted, zero)
        self.assertEqual(self.picture(other)[0], zero)

    def test_inspect(self):
        """The same model, but for its name and the bytes of what the one and the other have besides."""
        folder = self.run_json("inspect", GOLDEN / "models/b")
        found = self.run_json("inspect", self.write("b"))
        self.assertEqual("fine-tuned", found.pop("model"))
        folder.pop("model")
        for component in folder["components"] + found["components"]:
            self.assertGreater(component.pop("stored_bytes"), 0)
        self.assertEqual(folder, found)

    def test_bench_step(self):
        """Its stages are timed with the checkpoint's weights."""
        report = self.run_json("bench", "step", "--model", self.write("b"), "--size", "64x48", "--steps", 2, "--repeat", 1,
                               "--pruning", "off", "--backend", "cpu", "--dtype", "f32")
        self.assertEqual("fine-tuned", report["model"])
        self.assertEqual(["gemm", "text", "unet", "vae", "gemm"], [stage["stage"] for stage in report["stages"]])


class Refused(Checkpoint):
    def test_other_kinds_are_named(self):
        for name, kind in (("cond_stage_model.transformer.x", "Stable Diffusion 1 or 2"),
                           ("conditioner.embedders.0.model.x", "refiner"), ("edm_vpred.sigma_max", "EDM"),
                           ("edm_mean", "EDM")):
            with self.subTest(name):
                said = self.refused(lambda tensors, name=name: tensors.update({name: ONE}))
                self.assertIn(kind, said)
                self.assertIn("fine-tuned.safetensors", said)
                shutil.rmtree(self.folder / "b")

    def test_no_checkpoint(self):
        self.assertIn("not a checkpoint", self.refused(lambda tensors: [
            tensors.pop(name) for name in list(tensors) if name.startswith("model.diffusion_model.")]))

    def test_missing_left_over_and_misshapen(self):
        name = "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight"
        self.assertIn(f'"{name}" is missing', self.refused(lambda tensors: tensors.pop(name)))
        shutil.rmtree(self.folder / "b")
        said = self.refused(lambda tensors: tensors.update({"model.diffusion_model.lora_up.weight": ONE}))
        self.assertIn('"lora_up.weight"', said)
        shutil.rmtree(self.folder / "b")
        said = self.refused(lambda tensors: tensors.update({name: ("F32", [32, 32], bytes(4 * 32 * 32))}))
        self.assertIn(f'"{name}" has shape', said)

    def test_alone_in_a_folder(self):
        path = self.folder / "alone.safetensors"
        write_safetensors(path, in_checkpoint("b"))
        said = self.run_wrong(1, "inspect", path)
        self.assertIn("needs its model's configs and tokenizers in the same folder", said)
        self.assertIn("model_index.json", said)

    def test_no_such_file(self):
        said = self.run_wrong(1, "inspect", self.bare_folder("b") / "none.safetensors")
        self.assertIn("none.safetensors", said)


if __name__ == "__main__":
    unittest.main()
