"""Writes those parts of diffusers' directory layout for SDXL that no model class writes: the tokenizer folders and the index."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from transformers import AddedToken, CLIPTokenizer

from .vocabulary import write_vocabulary

TOKENIZERS = {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}  # folder: padding token


def write_tokenizers(folder: Path, text: str, merges: int | None = None) -> int:
    """Writes both tokenizers, with a vocabulary learned from `text` (vocabulary.py), and returns the vocabulary's size."""
    with tempfile.TemporaryDirectory() as scratch:
        size = write_vocabulary(Path(scratch), text, merges)
        for name, pad in TOKENIZERS.items():
            tokenizer = CLIPTokenizer(
                f"{scratch}/vocab.json",
                f"{scratch}/merges.txt",
                bos_token=AddedToken("<|startoftext|>", normalized=True, special=True),
                eos_token=AddedToken("<|endoftext|>", normalized=True, special=True),
                unk_token=AddedToken("<|endoftext|>", normalized=True, special=True),
                pad_token=pad,
                model_max_length=77,
            )
            tokenizer.save_pretrained(folder / name)
    return size


def write_index(folder: Path, force_zeros: bool) -> None:
    index = {
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": "0.35.2",
        "force_zeros_for_empty_prompt": force_zeros,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
