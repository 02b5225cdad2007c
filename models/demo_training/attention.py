"""What self-attention is asked to do beside its work: to stay with tokens that show the same.

AT-EDM takes two facts about SDXL for granted: attention gathers on what is in the picture (so G-WPR ranks it first),
and a token attends most to tokens like it (so a pruned one can be copied from there). A small network on flat
drawings has no reason for either: left to itself the tokens of a thing look at the background, which is most of
the picture. So the maps that rank, of the first layer of each block, get a small loss of their own. It knows from the
scene what a token shows:

    a token of a thing looks at the tokens of that thing, evenly;
    a background token looks at background of its colour, and a little at things: at the token of a thing GLANCE times as
    much as at a token of the background, at all of them no more than MOST_GLANCES.

So the score that G-WPR passes on from look to look gathers on things, what a background token looks at most is
background like it, and no part of the background is better off than another, so that some of each is kept. The loss
is the Kullback-Leibler divergence of each token's attention from that, averaged over heads and over each kind of token.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from .tokens import Tokens, mean_where

GLANCE = 0.3  # of a background token at the token of a thing, in terms of the most that it looks at one of background
MOST_GLANCES = 0.08  # share of a background token's attention that things may have


class _Recorder:
    """An attention processor that keeps its map, [n, heads, tokens, tokens]."""

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
    """Makes the first self-attention of every block keep its map."""
    recorders = []
    for name, module in unet.named_modules():
        if name.endswith("transformer_blocks.0.attn1"):
            module.set_processor(recorder := _Recorder())
            recorders.append(recorder)
    return recorders


def wanted_attention(tokens: Tokens) -> torch.Tensor:
    """F32 [n, tokens, tokens], rows sum to 1."""
    thing = (tokens.things > 0).float()
    same_thing = (tokens.things[:, :, None] == tokens.things[:, None, :]).float() * thing[:, :, None]
    # One share for all: a part that gave more to things than another would lose its score to it.
    share = (GLANCE * tokens.alike.amax((1, 2)) * thing.sum(1)).clamp_max(MOST_GLANCES)
    share = torch.where(thing.sum(1) < thing.shape[1], share, 1.0)[:, None, None]
    at_things = thing / thing.sum(1, keepdim=True).clamp_min(1)
    looks = (1 - share) * tokens.alike + share * at_things[:, None, :]
    of_thing = same_thing / same_thing.sum(2, keepdim=True).clamp_min(1)
    return torch.where(thing[:, :, None] > 0, of_thing, looks)


def _straying(attention: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """The loss of one map, [n]."""
    wanted = wanted_attention(tokens)
    seen = attention.clamp_min(1e-9).log().mean(1)
    divergence = (wanted * (wanted.clamp_min(1e-9).log() - seen)).sum(2)
    thing = tokens.things > 0
    return mean_where(divergence, thing) + mean_where(divergence, ~thing)


def gathering_loss(recorders: list[_Recorder], levels: dict[int, Tokens]) -> torch.Tensor:
    """The mean over the recorded maps, [n]. `levels`: by the number of tokens."""
    return torch.stack([_straying(r.map, levels[r.map.shape[-1]]) for r in recorders]).mean(0)
