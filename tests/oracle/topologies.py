"""The toy models and the real SDXL configurations, as data.

Three models of SDXL topology, chosen so that together they vary what a loader and a pipeline can get wrong:

name   widths      layers   heads    head size  projection  prediction  storage
a      8,16,64     1,2,1    1,1,1    16, 64     linear      epsilon     f16, plain names
b      8,16,32     1,3,1    1,1,2    16, 16     linear      epsilon     `fp16` variant names, bf16 and f32 among them
c      16,24,32    1,1,2    2,3,1    8, 32      1x1 conv    v           UNet sharded, f16 and f32
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Config = dict[str, Any]

# What the toy models' vocabularies are learned from.
VOCABULARY_TEXT = """
a photo of a red fox in the snow at night a photograph of an astronaut riding a horse on the moon
a watercolor painting of a lighthouse on a rocky coast under a stormy sky with dramatic lighting
portrait of an old man with a white beard and a blue hat highly detailed digital art by a great artist
the city in the rain at sunset neon lights reflecting on wet streets cinematic photography sharp focus
a small cottage in a green forest with a river and mountains in the background oil on canvas
blurry low quality ugly bad anatomy deformed watermark text signature worst quality jpeg artifacts
a bowl of fruit on a wooden table still life in the style of the dutch masters soft light
two cats playing chess in a library it's a sunny day they're happy i've seen that we'll go i'm here he'd
an isometric drawing of a castle trending in the gallery masterpiece best quality ultra realistic
café über straße naïve 日本 東京 日本語 фото кот mañana … — “quoted” 2024 100
"""

SDXL_SCHEDULER: Config = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "interpolation_type": "linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "use_karras_sigmas": False,
}


@dataclass(frozen=True)
class TextEncoder:
    """One CLIP text encoder; `projection` is only used by the second."""

    width: int
    layers: int
    heads: int
    feed_forward: int
    activation: str
    projection: int
    eos_token_id: int | None = 2  # 2 is what every SDXL model says; None means the vocabulary's real id


@dataclass(frozen=True)
class Model:
    """A toy model: what differs from one to the next, the rest is as in SDXL."""

    name: str
    seed: int
    widths: tuple[int, ...]
    transformer_layers: tuple[int, ...] | int
    heads: tuple[int, ...] | int
    layers_per_block: int
    norm_groups: int
    use_linear_projection: bool
    time_ids_width: int
    text_1: TextEncoder
    text_2: TextEncoder
    vae_widths: tuple[int, ...]
    vae_layers: int
    vae_norm_groups: int
    vae_quant_conv: bool
    force_zeros: bool
    merges: int
    scheduler: Config = field(default_factory=dict)
    dtypes: Config = field(default_factory=dict)  # component -> dtype name, default float16
    variant: str | None = None
    shard_sizes: Config = field(default_factory=dict)  # component -> size, default one file
    changes: Config = field(default_factory=dict)  # component -> what else its configuration has


MODELS: tuple[Model, ...] = (
    Model(
        name="a",
        seed=1001,
        widths=(8, 16, 64),
        transformer_layers=(1, 2, 1),
        heads=(1, 1, 1),
        layers_per_block=1,
        norm_groups=8,
        use_linear_projection=True,
        time_ids_width=16,
        text_1=TextEncoder(32, 3, 2, 128, "quick_gelu", 32),
        text_2=TextEncoder(32, 4, 4, 64, "gelu", 24),
        vae_widths=(8, 8, 8, 16),
        vae_layers=1,
        vae_norm_groups=8,
        vae_quant_conv=True,
        force_zeros=True,
        merges=320,
    ),
    Model(
        name="b",
        seed=1002,
        widths=(8, 16, 32),
        transformer_layers=(1, 3, 1),
        heads=(1, 1, 2),
        layers_per_block=2,
        norm_groups=4,
        use_linear_projection=True,
        time_ids_width=8,
        text_1=TextEncoder(24, 3, 3, 48, "quick_gelu", 24),
        text_2=TextEncoder(32, 5, 2, 64, "gelu", 32),
        vae_widths=(4, 4, 8, 8),
        vae_layers=2,
        vae_norm_groups=4,
        vae_quant_conv=True,
        force_zeros=False,
        merges=200,
        dtypes={"vae": "float32", "text_encoder": "bfloat16"},
        variant="fp16",
    ),
    Model(
        name="c",
        seed=1003,
        widths=(16, 24, 32),
        transformer_layers=(1, 1, 2),
        heads=(2, 3, 1),
        layers_per_block=1,
        norm_groups=8,
        use_linear_projection=False,
        time_ids_width=32,
        text_1=TextEncoder(16, 4, 1, 64, "quick_gelu", 16),
        text_2=TextEncoder(24, 3, 2, 80, "gelu", 16, eos_token_id=None),
        vae_widths=(4, 8, 12, 16),
        vae_layers=1,
        vae_norm_groups=4,
        vae_quant_conv=False,
        force_zeros=True,
        merges=64,
        scheduler={"prediction_type": "v_prediction", "timestep_spacing": "trailing", "steps_offset": 0},
        dtypes={"text_encoder_2": "float32"},
        shard_sizes={"unet": "250KB"},
    ),
)


def unet_config(model: Model) -> Config:
    """The UNet configuration of a toy model."""
    cross_attention = model.text_1.width + model.text_2.width
    return {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": model.widths,
        "layers_per_block": model.layers_per_block,
        "norm_num_groups": model.norm_groups,
        "cross_attention_dim": cross_attention,
        "transformer_layers_per_block": model.transformer_layers,
        "attention_head_dim": model.heads,
        "use_linear_projection": model.use_linear_projection,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": model.time_ids_width,
        "projection_class_embeddings_input_dim": model.text_2.projection + 6 * model.time_ids_width,
        **model.changes.get("unet", {}),
    }


def vae_config(model: Model) -> Config:
    """The VAE configuration of a toy model."""
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * len(model.vae_widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(model.vae_widths),
        "block_out_channels": model.vae_widths,
        "layers_per_block": model.vae_layers,
        "norm_num_groups": model.vae_norm_groups,
        "latent_channels": 4,
        "sample_size": 128,
        "scaling_factor": 0.13025,
        "use_quant_conv": model.vae_quant_conv,
        "use_post_quant_conv": model.vae_quant_conv,
        **model.changes.get("vae", {}),
    }


def text_config(encoder: TextEncoder, vocab_size: int) -> Config:
    """A CLIP text configuration; the token ids are the ones that SDXL's own files carry."""
    eos = vocab_size - 1 if encoder.eos_token_id is None else encoder.eos_token_id
    return {
        "vocab_size": vocab_size,
        "hidden_size": encoder.width,
        "intermediate_size": encoder.feed_forward,
        "num_hidden_layers": encoder.layers,
        "num_attention_heads": encoder.heads,
        "max_position_embeddings": 77,
        "hidden_act": encoder.activation,
        "layer_norm_eps": 1e-5,
        "projection_dim": encoder.projection,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": eos,
    }


SDXL_BASE_UNET: Config = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

SDXL_BASE_VAE: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
}

SDXL_BASE_TEXT_1 = TextEncoder(768, 12, 12, 3072, "quick_gelu", 768)
SDXL_BASE_TEXT_2 = TextEncoder(1280, 32, 20, 5120, "gelu", 1280)
SDXL_BASE_VOCABULARY = 49408
