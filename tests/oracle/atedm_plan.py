"""Pruning plans: from the `pruning` object of a request to a ratio per step and attention block.

Written from at-edm.md alone and used by the AT-EDM goldens and by the FLOPs goldens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

EPSILON = 1e-9  # 0.3 * 10 is 2.9999999999999996 in binary; what is whole in decimal stays whole


@dataclass(frozen=True)
class Block:
    """One attention block: its name in at-edm.md, its place in the UNet, its attention layers."""

    name: str
    path: str  # of the Transformer2DModel inside the diffusers UNet
    level: int
    layers: int
    first_of_down: bool = False
    last_of_up: bool = False


def attention_blocks(config: Any) -> list[Block]:
    """The attention blocks of a UNet in execution order, from its diffusers configuration."""
    levels = len(config.block_out_channels)
    layers = config.transformer_layers_per_block
    if isinstance(layers, int):
        layers = [layers] * levels
    blocks: list[Block] = []
    for stage, kind in enumerate(config.down_block_types):
        if kind.startswith("CrossAttn"):
            for i in range(config.layers_per_block):
                path = f"down_blocks.{stage}.attentions.{i}"
                blocks.append(Block(f"down.{stage}.{i}", path, stage, layers[stage], first_of_down=i == 0))
    blocks.append(Block("mid", "mid_block.attentions.0", levels - 1, layers[-1]))
    for stage, kind in enumerate(config.up_block_types):
        if kind.startswith("CrossAttn"):
            level = levels - 1 - stage
            for i in range(config.layers_per_block + 1):
                path = f"up_blocks.{stage}.attentions.{i}"
                last = i == config.layers_per_block
                blocks.append(Block(f"up.{stage}.{i}", path, level, layers[level], last_of_up=last))
    return blocks


def kept_count(tokens: int, ratio: float) -> int:
    """K = max(1, N - floor(rho N))."""
    return max(1, tokens - math.floor(ratio * tokens + EPSILON))


def phase_end(until: float, steps: int) -> int:
    """The first step that a phase no longer covers: until * n, rounded, halves up."""
    return math.floor(until * steps + 0.5 + EPSILON)


def phases_of(pruning: dict[str, Any]) -> list[dict[str, Any]]:
    """`dsap` and `uniform` written out as phases; explicit phases as they are."""
    if "phases" in pruning:
        return pruning["phases"]
    whole = {"until": 1.0, "ratio": pruning["ratio"], "skip": []}
    if pruning["schedule"] == "uniform":
        return [whole]
    less = {"until": pruning.get("tau", 0.3), "ratio": pruning["ratio"], "skip": ["down.first", "up.last"]}
    return [less, whole]


def is_skipped(block: Block, skip: list[str]) -> bool:
    named = block.name in skip
    return named or (block.first_of_down and "down.first" in skip) or (block.last_of_up and "up.last" in skip)


def resolve(pruning: dict[str, Any], blocks: list[Block], steps: int) -> list[list[float]]:
    """The plan: [steps][blocks] -> rho, 0 where the block is left alone."""
    phases = phases_of(pruning)
    never = set(pruning.get("skip_levels", []))
    plan: list[list[float]] = []
    for step in range(steps):
        phase = next(phase for phase in phases if step < phase_end(phase["until"], steps))
        ratio = phase.get("ratio", pruning.get("ratio"))
        skip = phase.get("skip", [])
        plan.append([0.0 if b.level in never or is_skipped(b, skip) else ratio for b in blocks])
    return plan
