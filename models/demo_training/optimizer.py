"""Optimizers: Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for weight matrices, AdamW for the rest.

Muon makes the update of a matrix orthogonal by Newton-Schulz iterations. It then scales the update to the size that
AdamW's would have (Liu et al. 2025, arXiv 2502.16982), so that both can use the same learning rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def _orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Approximates the closest orthogonal matrix to each of `matrices`, [n, rows, columns]."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For parameters of two or more dimensions; a convolution counts as a matrix [out, in * kernel]."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[tuple(parameter.shape)].append(parameter)
            for shape, parameters in alike.items():
                self._step_alike(group, shape, parameters)

    def _step_alike(self, group: dict, shape: tuple[int, ...], parameters: list[nn.Parameter]) -> None:
        beta, wanted = group["momentum"], []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - beta)
            wanted.append(parameter.grad.lerp(state["momentum"], beta).reshape(shape[0], -1))
        updates = _orthogonal(torch.stack(wanted))
        scale = 0.2 * max(updates.shape[1:]) ** 0.5
        for parameter, update in zip(parameters, updates):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.reshape(shape), alpha=-group["lr"] * scale)


# Parts at the edge of a network, which AdamW trains: embeddings, the first and the last convolution.
_EDGES = ("conv_in", "conv_out", "time_embedding", "add_embedding")


def make_optimizers(network: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the network; AdamW for its edges, norms and biases."""
    matrices, others = [], []
    for name, parameter in network.named_parameters():
        edge = any(part in _EDGES for part in name.split("."))
        (others if parameter.ndim < 2 or edge else matrices).append(parameter)
    return [Muon(matrices, lr=rate), torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]


def optimize(network: nn.Module, optimizers: list[torch.optim.Optimizer], loss: torch.Tensor, rate: float) -> None:
    """One step of all optimizers, with the same learning rate."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
