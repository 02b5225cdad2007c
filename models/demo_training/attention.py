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

from dataclasses import dataclass

import numpy as np
import torch
from demo_world.draw import background, coverage
from demo_world.scene import SIZES, Scene
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

SHOWN = 0.15  # share of its area that a thing has to cover for a token to show the thing
ALIKE = 0.12  # distance of colours at which interest falls, in units where black to white is sqrt(3)
GLANCE = 0.3  # of a background token at the token of a thing, in terms of the most that it looks at one of background
MOST_GLANCES = 0.08  # share of a background token's attention that things may have
_SAMPLES = 4  # per side of a token
_BALANCING = 10  # iterations


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


@dataclass(frozen=True)
class Tokens:
    """What the tokens of some pictures show."""

    things: torch.Tensor  # I64 [n, tokens]: 0 for background, else 1 + the thing
    ground: torch.Tensor  # F32 [n, tokens, 3]: colour of the background there, also behind things

    def to(self, device: torch.device) -> Tokens:
        return Tokens(self.things.to(device), self.ground.to(device))


def _pooled(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Means over the samples of each token, [rows, columns, ...]."""
    return values.reshape(rows, _SAMPLES, columns, _SAMPLES, *values.shape[2:]).mean((1, 3))


def look_at(scenes: list[Scene], size: tuple[int, int], rows: int, columns: int) -> Tokens:
    """For pictures of that width and height."""
    width, height = size
    fine_x = (np.arange(columns * _SAMPLES) + 0.5) * width / (columns * _SAMPLES)
    fine_y = (np.arange(rows * _SAMPLES) + 0.5) * height / (rows * _SAMPLES)
    x, y = np.meshgrid(fine_x, fine_y)
    things, grounds = [], []
    for scene in scenes:
        shares = [np.full((rows, columns), SHOWN)]
        for thing in scene.things:
            radius = SIZES[thing.size] * min(width, height)
            fine = coverage(thing.shape, radius, x - thing.x * width, y - thing.y * height)
            shares.append(_pooled(fine, rows, columns))
        things.append(np.argmax(shares, axis=0).ravel())
        ground = background(scene.background, scene.colours, columns * _SAMPLES, rows * _SAMPLES)
        grounds.append(_pooled(ground, rows, columns).reshape(-1, 3))
    return Tokens(torch.from_numpy(np.stack(things)), torch.from_numpy(np.stack(grounds)))


def _balanced(weights: torch.Tensor) -> torch.Tensor:
    """Symmetric weights brought near to rows and columns that all sum to 1 (Sinkhorn and Knopp); empty rows stay so."""
    for _ in range(_BALANCING):
        weights = weights / weights.sum(2, keepdim=True).sqrt().clamp_min(1e-6)
        weights = weights / weights.sum(1, keepdim=True).sqrt().clamp_min(1e-6)
    return weights / weights.sum(2, keepdim=True).clamp_min(1e-6)


def wanted_attention(tokens: Tokens) -> torch.Tensor:
    """F32 [n, tokens, tokens], rows sum to 1."""
    thing = (tokens.things > 0).float()
    same_thing = (tokens.things[:, :, None] == tokens.things[:, None, :]).float() * thing[:, :, None]
    distance = torch.cdist(tokens.ground, tokens.ground)
    both_background = (1 - thing)[:, :, None] * (1 - thing)[:, None, :]
    alike = _balanced(torch.exp(-0.5 * (distance / ALIKE).square()) * both_background)
    # One share for all: a part that gave more to things than another would lose its score to it.
    share = (GLANCE * alike.amax((1, 2)) * thing.sum(1)).clamp_max(MOST_GLANCES)
    share = torch.where(both_background.sum((1, 2)) > 0, share, 1.0)[:, None, None]
    at_things = thing / thing.sum(1, keepdim=True).clamp_min(1)
    looks = (1 - share) * alike + share * at_things[:, None, :]
    of_thing = same_thing / same_thing.sum(2, keepdim=True).clamp_min(1)
    return torch.where(thing[:, :, None] > 0, of_thing, looks)


def _straying(attention: torch.Tensor, tokens: Tokens, wanted: torch.Tensor) -> torch.Tensor:
    """The loss of one map, [n]."""
    seen = attention.clamp_min(1e-9).log().mean(1)
    divergence = (wanted * (wanted.clamp_min(1e-9).log() - seen)).sum(2)
    thing = tokens.things > 0
    return _mean_where(divergence, thing) + _mean_where(divergence, ~thing)


def _mean_where(values: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Of each row; 0 where nothing is wanted."""
    return (values * wanted).sum(1) / wanted.sum(1).clamp_min(1)


def gathering_loss(
    recorders: list[_Recorder], scenes: list[Scene], size: tuple[int, int], latent: tuple[int, int]
) -> torch.Tensor:
    """The mean over the recorded maps, [n]. `size`: width and height in pixels; `latent`: rows and columns."""
    rows, columns = latent
    known: dict[int, tuple[Tokens, torch.Tensor]] = {}
    device = recorders[0].map.device
    for _ in range(2):  # the levels with attention
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
        tokens = look_at(scenes, size, rows, columns).to(device)
        known[rows * columns] = tokens, wanted_attention(tokens)
    return torch.stack([_straying(r.map, *known[r.map.shape[-1]]) for r in recorders]).mean(0)
