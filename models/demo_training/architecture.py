"""The demo model's architecture: SDXL's topology, but small. Names and values are those of diffusers' and transformers'
configs."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

NATIVE_SIZE = 256  # pixels
LATENT_SCALE = 8  # side of a latent, in pixels
TOKENS = 77
TEXT_WIDTH = 64  # of each encoder
POOLED_WIDTH = 128
TIME_IDS_WIDTH = 32

# SDXL base's values, except that the network predicts v, which is better conditioned where the noise is strongest.
SCHEDULER: Config = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "interpolation_type": "linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "use_karras_sigmas": False,
}

UNET: Config = {
    "sample_size": NATIVE_SIZE // LATENT_SCALE,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 64, 128),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 2 * TEXT_WIDTH,
    "transformer_layers_per_block": (1, 3, 4),
    "attention_head_dim": (1, 2, 4),  # despite its name, the number of heads; each has size 32
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": TIME_IDS_WIDTH,
    "projection_class_embeddings_input_dim": POOLED_WIDTH + 6 * TIME_IDS_WIDTH,
}

VAE: Config = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (8, 16, 32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "latent_channels": 4,
    "sample_size": NATIVE_SIZE,
    "scaling_factor": 0.7,
}


def text_config(second: bool, vocabulary: int) -> Config:
    """The config of a CLIP text model. SDXL has two; the second one uses GELU and has a projection."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": TOKENS,
        "hidden_act": "gelu" if second else "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": POOLED_WIDTH if second else TEXT_WIDTH,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,  # SDXL's own files have this value; it means: pool at the first token with the highest id
    }
