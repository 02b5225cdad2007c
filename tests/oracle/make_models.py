"""Writes the toy models of topologies.py in the diffusers directory layout, with seeded random weights.

The weights are scaled by role so that activations neither grow nor vanish, attention maps are far from
uniform (a ranking by G-WPR means something) and the decoded image stays inside its range.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from common import MODELS_DIR, use_one_thread
from topologies import MODELS, SDXL_SCHEDULER, VOCABULARY_TEXT, Model, text_config, unet_config, vae_config

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "models"))
from demo_training.layout import write_index, write_tokenizers  # noqa: E402

# (part of the parameter's module path, gain): the first that matches wins, everything else has gain 1.
GAINS: dict[str, tuple[tuple[str, float], ...]] = {
    "unet": (
        ("attn1.to_q", 1.5),
        ("attn1.to_k", 1.5),
        ("attn2.to_q", 1.5),
        ("attn2.to_k", 1.5),
        ("to_out", 0.7),
        ("ff.net.2", 0.7),
        ("proj_out", 0.7),
        ("conv2", 0.7),
        ("add_embedding.linear_1", 0.5),
        ("conv_in", 0.5),
        ("conv_out", 0.3),
    ),
    "vae": (("to_q", 1.3), ("to_k", 1.3), ("conv2", 0.7), ("decoder.conv_out", 0.5)),
    "text": (("q_proj", 1.5), ("k_proj", 1.5), ("out_proj", 0.7), ("fc2", 0.7)),
}


def gain_of(path: str, family: str) -> float:
    return next((gain for part, gain in GAINS[family] if part in path), 1.0)


def randomize(module: nn.Module, family: str, seed: int) -> None:
    """Fills every parameter: He-like weights times the gain of their role, norms near 1, small biases."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, mean: float, deviation: float) -> None:
        tensor.copy_(mean + deviation * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for path, part in module.named_modules():
            if isinstance(part, (nn.Linear, nn.Conv2d)):
                fan_in = part.weight[0].numel()
                normal(part.weight, 0.0, gain_of(path, family) / math.sqrt(fan_in))
                if part.bias is not None:
                    normal(part.bias, 0.0, 0.1)
            elif isinstance(part, (nn.GroupNorm, nn.LayerNorm)):
                normal(part.weight, 1.0, 0.15)
                normal(part.bias, 0.0, 0.15)
            elif isinstance(part, nn.Embedding):
                normal(part.weight, 0.0, 0.7)


def carry_latent_through(unet: UNet2DConditionModel) -> None:
    """Adds a path from the input to the prediction, so that a random UNet predicts mostly its own noise.

    Channels 0-3 of the first skip connection hold +x, 4-7 hold -x; the last shortcut passes them on and
    `conv_out` takes silu(z) - silu(-z) = z. Without it the latent never loses its noise over the steps.
    """
    conv_in, conv_out = unet.conv_in.weight, unet.conv_out.weight
    shortcut = unet.up_blocks[-1].resnets[-1].conv_shortcut.weight
    skip_starts = shortcut.shape[1] - conv_in.shape[0]
    with torch.no_grad():
        for channel in range(4):
            for row, sign in ((channel, 1.0), (channel + 4, -1.0)):
                conv_in[row, channel, 1, 1] += 2.0 * sign
                shortcut[row, skip_starts + row] += 2.0
                conv_out[channel, row, 1, 1] += sign


def save(module: Any, model: Model, folder: Path, component: str) -> None:
    dtype = getattr(torch, model.dtypes.get(component, "float16"))
    size = model.shard_sizes.get(component)
    shard = {} if size is None else {"max_shard_size": size}
    module.to(dtype).save_pretrained(folder / component, variant=model.variant, **shard)


def save_text_encoder(model: Model, folder: Path, which: int, vocab_size: int) -> None:
    name = "text_encoder" if which == 1 else "text_encoder_2"
    config = text_config(model.text_1 if which == 1 else model.text_2, vocab_size) | model.changes.get(name, {})
    encoder = (CLIPTextModel if which == 1 else CLIPTextModelWithProjection)(CLIPTextConfig(**config))
    randomize(encoder, "text", model.seed * 10 + which)
    save(encoder, model, folder, name)


def save_unet(model: Model, folder: Path) -> None:
    unet = UNet2DConditionModel(**unet_config(model))
    randomize(unet, "unet", model.seed * 10)
    carry_latent_through(unet)
    save(unet, model, folder, "unet")


def save_vae(model: Model, folder: Path) -> None:
    vae = AutoencoderKL(**vae_config(model))
    randomize(vae, "vae", model.seed * 10 + 3)
    save(vae, model, folder, "vae")


def add_position_ids(file: Path) -> None:
    """Adds the I64 buffer that text encoders saved by older transformers carry; readers ignore it."""
    tensors = load_file(file)
    tensors["text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    save_file(tensors, file, metadata={"format": "pt"})


def write_model(model: Model, folder: Path) -> None:
    """Writes one model, replacing the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    vocab_size = write_tokenizers(folder, VOCABULARY_TEXT, model.merges)
    save_text_encoder(model, folder, 1, vocab_size)
    save_text_encoder(model, folder, 2, vocab_size)
    save_unet(model, folder)
    save_vae(model, folder)
    EulerDiscreteScheduler(**{**SDXL_SCHEDULER, **model.scheduler}).save_pretrained(folder / "scheduler")
    write_index(folder, model.force_zeros)
    if model.name == "b":
        add_position_ids(folder / "text_encoder" / "model.fp16.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MODELS_DIR, help="folder that gets one folder per model")
    parser.add_argument("--only", choices=[model.name for model in MODELS], help="write just this model")
    args = parser.parse_args()
    use_one_thread()
    for model in MODELS:
        if args.only in (None, model.name):
            write_model(model, args.out / model.name)
            size = sum(file.stat().st_size for file in (args.out / model.name).rglob("*") if file.is_file())
            print(f"model {model.name}: {size} bytes")


if __name__ == "__main__":
    main()
