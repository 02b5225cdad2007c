"""A loss on attention blocks: they should add the same to tokens that show the same.

AT-EDM gives a pruned token what the block added to another token. That is right to the extent that the block adds the same
to both, as it does if both show the same sky. A small network with few tokens has no reason to do so. Its blocks also add
to every token something about its own noise and its own colour, which is wrong for any other token, and in the last steps
nothing corrects it. So there is a small loss: the variance of what a block adds to the tokens of one object, and to the
tokens of the background, whatever their colours. Its weight grows as the noise falls. Information about single tokens can
still go through the convolutions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import nn

from .tokens import Tokens, mean_where


class _Recorder:
    """A hook that keeps a block's output and what the block added to its input, both [n, channels, rows, columns]."""

    def __init__(self) -> None:
        self.added: torch.Tensor | None = None
        self.out: torch.Tensor | None = None

    def __call__(self, _: nn.Module, inputs: tuple, outputs: tuple) -> None:
        self.out = outputs[0]
        self.added = outputs[0] - inputs[0]


def record_blocks(unet: UNet2DConditionModel) -> list[_Recorder]:
    """Makes every attention block keep its output and what it adds."""
    recorders = []
    for name, module in unet.named_modules():
        if name.rpartition(".")[0].endswith("attentions"):
            module.register_forward_hook(recorder := _Recorder())
            recorders.append(recorder)
    return recorders


def _spread(recorder: _Recorder, levels: dict[int, Tokens]) -> torch.Tensor:
    """The loss of one block, [n]: the variance of what it added within each object and within the background, relative to
    the mean square of its output."""
    added = recorder.added.float().flatten(2).mT  # [n, tokens, channels]
    tokens = levels[added.shape[1]]
    groups = (F.one_hot(tokens.things) * tokens.even[:, :, None]).float()  # [n, tokens, background and objects]
    means = (groups.mT @ added) / groups.sum(1)[:, :, None].clamp_min(1)
    distance = (added - groups @ means).square().mean(2)
    return mean_where(distance, tokens.even) / recorder.out.detach().float().square().mean((1, 2, 3))


def unevenness(recorders: list[_Recorder], levels: dict[int, Tokens]) -> torch.Tensor:
    """The mean loss over the blocks, [n]. `levels` has the tokens of each resolution, by their number."""
    return torch.stack([_spread(r, levels) for r in recorders]).mean(0)
