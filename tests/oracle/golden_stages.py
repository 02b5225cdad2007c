"""Goldens of single stages: one UNet evaluation with every block's output, one VAE decode."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from common import DATA_DIR, load_pipeline, write_tensors
from topologies import MODELS

Tensors = dict[str, torch.Tensor]


def stage_modules(unet: UNet2DConditionModel) -> dict[str, torch.nn.Module]:
    """The UNet's stages by the names that the goldens use."""
    named = {"time_embedding": unet.time_embedding, "add_embedding": unet.add_embedding, "conv_in": unet.conv_in}
    named |= {f"down.{i}": block for i, block in enumerate(unet.down_blocks)}
    named["mid"] = unet.mid_block
    named |= {f"up.{i}": block for i, block in enumerate(unet.up_blocks)}
    named["conv_norm_out"] = unet.conv_norm_out
    return named


def unet_inputs(unet: UNet2DConditionModel, seed: int) -> Tensors:
    """Two samples with timesteps of their own; 77 text tokens of unit variance."""
    config = unet.config
    pooled_width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    generator = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(2, 4, 8, 12, generator=generator),
        "timestep": torch.tensor([981.0, 40.5]),
        "encoder_hidden_states": torch.randn(2, 77, config.cross_attention_dim, generator=generator),
        "text_embeds": torch.randn(2, pooled_width, generator=generator),
        "time_ids": torch.tensor([[64.0, 96.0, 0.0, 0.0, 64.0, 96.0], [1024.0, 768.0, 8.0, 16.0, 1024.0, 768.0]]),
    }


def unet_stage(unet: UNet2DConditionModel, seed: int) -> Tensors:
    """Inputs, `noise_pred`, and `block.NAME` for each stage."""
    inputs = unet_inputs(unet, seed)
    outputs: Tensors = {}
    hooks = []
    for name, module in stage_modules(unet).items():

        def keep(_module: torch.nn.Module, _args: tuple, output: torch.Tensor | tuple, name: str = name) -> None:
            outputs[f"block.{name}"] = output[0] if isinstance(output, tuple) else output

        hooks.append(module.register_forward_hook(keep))
    outputs["noise_pred"] = unet(
        inputs["sample"],
        inputs["timestep"],
        inputs["encoder_hidden_states"],
        added_cond_kwargs={"text_embeds": inputs["text_embeds"], "time_ids": inputs["time_ids"]},
    ).sample
    for hook in hooks:
        hook.remove()
    return inputs | outputs


def vae_stage(vae: AutoencoderKL, seed: int) -> Tensors:
    """`latent` as the VAE takes it (already divided by the scaling factor) and `image`, not clamped."""
    latent = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(seed)) / vae.config.scaling_factor
    return {"latent": latent, "image": vae.decode(latent).sample}


def write_all(folder: Path = DATA_DIR / "stages") -> None:
    for model in MODELS:
        pipeline = load_pipeline(model.name)
        write_tensors(folder / f"{model.name}-unet.safetensors", unet_stage(pipeline.unet, model.seed))
        write_tensors(folder / f"{model.name}-vae.safetensors", vae_stage(pipeline.vae, model.seed))
