"""What attention blocks are asked to do beside their work: to add the same to tokens that show the same.

AT-EDM gives a pruned token what the block added to another one. That is right as far as the block adds the same to both, as
it does where neighbours show the same sky. A small network on few tokens has no reason to: its blocks tell every token its
own noise and its own colour too, which is wrong for any other, and in the last steps nothing mends it. So the variance of what
a block adds to the tokens of a thing, and to all of the background whatever its colour, is a small loss, the more the less
noise there is. What is to be known of each token alone goes through the convolutions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import nn

from .tokens import Tokens, mean_where


class _Recorder:
    """A hook that keeps what a block added to its input and what came out, [n, channels, rows, columns]."""

    def __init__(self) -> None:
        self.added: torch.Tensor | None = None
        self.out: torch.Tensor | None = None

    def __call__(self, _: nn.Module, inputs: tuple, outputs: tuple) -> None:
        self.out = outputs[0]
        self.added = outputs[0] - inputs[0]


def record_blocks(unet: UNet2DConditionModel) -> list[_Recorder]:
    """Makes every attention block keep what it adds."""
    recorders = []
    for name, module in unet.named_modules():
        if name.rpartition(".")[0].endswith("attentions"):
            module.register_forward_hook(recorder := _Recorder())
            recorders.append(recorder)
    return recorders


def _spread(recorder: _Recorder, levels: dict[int, Tokens]) -> torch.Tensor:
    """Variance of what was added to tokens that show the same thing, or that show background, in terms of the power of
    what came out, [n]."""
    added = recorder.added.float().flatten(2).mT  # [n, tokens, channels]
    tokens = levels[added.shape[1]]
    groups = (F.one_hot(tokens.things) * tokens.even[:, :, None]).float()  # [n, tokens, background and things]
    means = (groups.mT @ added) / groups.sum(1)[:, :, None].clamp_min(1)
    distance = (added - groups @ means).square().mean(2)
    return mean_where(distance, tokens.even) / recorder.out.detach().float().square().mean((1, 2, 3))


def unevenness(recorders: list[_Recorder], levels: dict[int, Tokens]) -> torch.Tensor:
    """The mean over the blocks, [n]. `levels`: by the number of tokens."""
    return torch.stack([_spread(r, levels) for r in recorders]).mean(0)
