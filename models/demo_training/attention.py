"""A loss on self-attention: a token should attend to tokens that show the same.

AT-EDM relies on two properties of SDXL. Attention concentrates on the objects of the picture, so G-WPR ranks their tokens
first. And a token attends most to tokens that resemble it, so a pruned token can be copied from one of those. A small
network on flat drawings has no reason to have either property. Left to itself, the tokens of an object attend to the
background, which is most of the picture. So the attention maps from which tokens are ranked, those of the first layer of
each block, get a small additional loss. The scene tells it what each token shows, and so what attention is wanted:

    the token of an object attends evenly to the tokens of the same object;
    a background token attends to background of its own colour, and a little to objects: to each token of an object GLANCE
    times as much as to the background token that it attends to most, but to all of them together MOST_GLANCES at most.

With such maps, the score that G-WPR propagates through attention concentrates on objects. A background token attends most
to background that resembles it. And no part of the background gets more score than another, so some of each part is kept.
The loss is the Kullback-Leibler divergence of each token's attention from the wanted one, averaged over the heads, and
separately over the tokens of objects and of background.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from .tokens import Tokens, mean_where

GLANCE = 0.3  # attention of a background token to an object's token, relative to the most it pays to a background token
MOST_GLANCES = 0.08  # share of a background token's attention that all objects together may get


class _Recorder:
    """An attention processor that keeps its attention map, [n, heads, tokens, tokens]."""

    def __init__(self) -> None:
        self.map: torch.Tensor | None = None

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, *_, **__) -> torch.Tensor:
        query, key, value = (
            project(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        self.map = (query @ key.mT * attn.scale).float().softmax(-1)
        mixed = (self.map.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[0](mixed)


def record_maps(unet: UNet2DConditionModel) -> list[_Recorder]:
    """Makes the first self-attention of every block keep its attention map."""
    recorders = []
    for name, module in unet.named_modules():
        if name.endswith("transformer_blocks.0.attn1"):
            module.set_processor(recorder := _Recorder())
            recorders.append(recorder)
    return recorders


def wanted_attention(tokens: Tokens) -> torch.Tensor:
    """The wanted attention map, f32 [n, tokens, tokens]; rows sum to 1."""
    thing = (tokens.things > 0).float()
    same_thing = (tokens.things[:, :, None] == tokens.things[:, None, :]).float() * thing[:, :, None]
    # All background tokens pay objects the same share: a part of the background that paid more would lose score to another.
    share = (GLANCE * tokens.alike.amax((1, 2)) * thing.sum(1)).clamp_max(MOST_GLANCES)
    share = torch.where(thing.sum(1) < thing.shape[1], share, 1.0)[:, None, None]
    at_things = thing / thing.sum(1, keepdim=True).clamp_min(1)
    looks = (1 - share) * tokens.alike + share * at_things[:, None, :]
    of_thing = same_thing / same_thing.sum(2, keepdim=True).clamp_min(1)
    return torch.where(thing[:, :, None] > 0, of_thing, looks)


def _straying(attention: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """The loss of one attention map, [n]."""
    wanted = wanted_attention(tokens)
    seen = attention.clamp_min(1e-9).log().mean(1)
    divergence = (wanted * (wanted.clamp_min(1e-9).log() - seen)).sum(2)
    thing = tokens.things > 0
    return mean_where(divergence, thing) + mean_where(divergence, ~thing)


def gathering_loss(recorders: list[_Recorder], levels: dict[int, Tokens]) -> torch.Tensor:
    """The mean loss over the recorded maps, [n]. `levels` has the tokens of each resolution, by their number."""
    return torch.stack([_straying(r.map, levels[r.map.shape[-1]]) for r in recorders]).mean(0)
