"""AT-EDM as at-edm.md defines it, in plain PyTorch over diffusers' own modules.

Nothing here is fast. Every attention map is a full matrix, every sample is taken on its own, and the layers
themselves are diffusers' BasicTransformerBlock, run on however many tokens are alive. Meant for float64.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import Transformer2DModel, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModelOutput

from atedm_plan import Block, attention_blocks, kept_count

Tensor = torch.Tensor

MAX_LAYERS = 32  # of an attention block


@dataclass(frozen=True)
class Method:
    """How to rank and recover; the names and defaults of the API."""

    prune_after: tuple[int, ...] = (0,)
    map: str = "self"
    heads: str = "rms"
    max_iterations: int = 8
    tolerance: float = 1e-3
    interval: int = 1
    selection: str = "sampled"
    recovery: str = "attention"
    copy: str = "update"
    proportional_attention: bool = True
    masks: str = "shared"

    @staticmethod
    def of(pruning: dict[str, Any]) -> Method:
        score = pruning.get("score", {})
        return Method(
            prune_after=tuple(sorted(set(pruning.get("prune_after", [0])))),
            selection=pruning.get("selection", "sampled"),
            recovery=pruning.get("recovery", "attention"),
            copy=pruning.get("copy", "update"),
            proportional_attention=pruning.get("proportional_attention", True),
            masks=pruning.get("masks", "shared"),
            **score,
        )


@dataclass
class Margins:
    """How far the closest decision was from going the other way."""

    selection: float = math.inf  # (K-th score - next) / K-th score
    source: float = math.inf  # best similarity - second best; relative to the best for `attention`
    stop: float = math.inf  # |largest change - tolerance|, whenever the rule was asked
    iterations: set[int] = field(default_factory=set)  # how many iterations the rankings took

    def lower(self, name: str, value: float) -> None:
        setattr(self, name, min(getattr(self, name), value))


@dataclass
class Cut:
    """What one pruning layer did: positions are those among the tokens alive before it."""

    kept: Tensor  # ascending positions
    source: Tensor  # for every position: the kept position that it is recovered from (itself if kept), -1 for none


def attention_map(attention: Attention, queries: Tensor, context: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) of one sample, [heads, tokens, context tokens]."""
    heads = attention.heads
    q = attention.to_q(queries).unflatten(-1, (heads, -1)).transpose(0, 1)
    k = attention.to_k(context).unflatten(-1, (heads, -1)).transpose(0, 1)
    return torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), dim=-1)


def normalized(x: Tensor) -> Tensor:
    return x / x.abs().sum(dim=-1, keepdim=True)


def rank(a: Tensor, method: Method, margins: Margins) -> Tensor:
    """G-WPR: the score of every token (row) of the maps a [heads, N, N or text tokens]."""
    heads, tokens, _ = a.shape
    s = torch.full((heads, tokens), 1.0 / tokens, dtype=a.dtype)
    for iteration in range(1, method.max_iterations + 1):
        mass = torch.einsum("hij,hi->hj", a, s)
        if method.map == "cross":
            mass = normalized(torch.einsum("hij,hj->hi", a, normalized(mass)))
        change = (mass - s).abs().sum(dim=-1).max().item()
        s = mass
        if method.tolerance > 0.0 and iteration < method.max_iterations:
            margins.lower("stop", abs(change - method.tolerance))
        if change <= method.tolerance:
            break
    margins.iterations.add(iteration)
    return s.square().mean(dim=0).sqrt() if method.heads == "rms" else s.mean(dim=0)


def split_mix(key: int, number: int) -> int:
    """Output `number` of SplitMix64 started at `key` (Steele, Lea & Flood, OOPSLA 2014)."""
    z = (key + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def chances(scores: Tensor, key: int) -> Tensor:
    """Whose largest are a selection without replacement by the scores: score / -ln(u), u uniform."""
    u = torch.tensor([(split_mix(key, i) // 2**41 + 0.5) / 2**23 for i in range(len(scores))], dtype=torch.float64)
    return scores / -u.log().to(scores.dtype)


def select(scores: Tensor, keep: int, margins: Margins) -> Tensor:
    """The `keep` best positions in ascending order; of equal scores the lower position wins."""
    order = torch.argsort(scores, descending=True, stable=True)
    if keep < len(order):
        last, following = scores[order[keep - 1]], scores[order[keep]]
        margins.lower("selection", ((last - following) / last).item())
    return order[:keep].sort().values


def best_of(similarity: Tensor, relative: bool, margins: Margins) -> Tensor:
    """Per row the column with the largest value, the lower one of equals."""
    best = similarity.argmax(dim=1)
    if similarity.shape[0] > 0 and similarity.shape[1] > 1:
        top = similarity.topk(2, dim=1).values
        gap = top[:, 0] - top[:, 1]
        margins.lower("source", (gap / top[:, 0] if relative else gap).min().item())
    return best


def sources(method: Method, kept: Tensor, a: Tensor, outputs: Tensor, places: Tensor, margins: Margins) -> Tensor:
    """For every token alive before the cut the position it takes its value from. places: [N, 2] grid row, column."""
    n = outputs.shape[0]
    source = torch.arange(n)
    pruned = torch.tensor(sorted(set(range(n)) - set(kept.tolist())), dtype=torch.long)
    if method.recovery == "zero":
        source[pruned] = -1
    elif method.recovery == "nearest":
        squared = (places[pruned, None] - places[None, kept]).square().sum(dim=-1)
        source[pruned] = kept[squared.argmin(dim=1)]
    elif method.recovery == "cosine":
        unit = outputs / outputs.norm(dim=-1, keepdim=True)
        source[pruned] = kept[best_of(unit[pruned] @ unit[kept].T, False, margins)]
    elif method.recovery == "attention":
        mean = a.mean(dim=0)
        source[pruned] = kept[best_of(mean[pruned][:, kept], True, margins)]
    else:
        raise ValueError(f"unknown recovery {method.recovery!r}")
    return source


@contextmanager
def inputs_of(layer: BasicTransformerBlock) -> Iterator[dict[str, Tensor]]:
    """Collects what the two attentions of a layer are given while it runs."""
    seen: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable:
        def keep(_module: Attention, args: tuple) -> None:
            seen[name] = args[0]

        return keep

    hooks = [getattr(layer, name).register_forward_pre_hook(keeper(name)) for name in ("attn1", "attn2")]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def slots(cut: Cut) -> Tensor:
    """For every position before the cut the place of its source among the kept, -1 for none."""
    slot = torch.full_like(cut.source, -1)
    slot[cut.kept] = torch.arange(len(cut.kept))
    return torch.where(cut.source >= 0, slot[cut.source.clamp(min=0)], -1)


def recover(cut: Cut, before: Tensor, kept: Tensor, copy: str) -> Tensor:
    """The tokens before the cut at the end of the block: `before` is what they were when it was made, `kept` what
    became of the kept ones."""
    tokens = torch.zeros_like(before) if copy == "value" else before.clone()
    for position, slot in enumerate(slots(cut).tolist()):
        if slot < 0:
            continue
        source = int(cut.source[position])
        if copy == "value" or source == position:
            tokens[position] = kept[slot]
        else:
            tokens[position] += kept[slot] - before[source]
    return tokens


def weights_behind(cut: Cut, weights: Tensor) -> Tensor:
    """How many tokens of the grid each kept one stands for: itself and those that are recovered from it."""
    counted = torch.zeros(len(cut.kept), dtype=weights.dtype)
    for position, slot in enumerate(slots(cut).tolist()):
        if slot >= 0:
            counted[slot] += weights[position]
    return counted


@dataclass
class SampleTrace:
    """One sample's pass through one pruned block, in grid indices."""

    kept: Tensor  # alive after the last pruning layer
    source: Tensor  # [N] grid index each token's value comes from, -1 for zero
    scores: Tensor  # [N] of the first pruning layer
    cuts: list[Cut]


def run_sample(
    block: Transformer2DModel,
    tokens: Tensor,
    context: Tensor,
    width: int,
    ratio: float,
    method: Method,
    margins: Margins,
    chance: tuple[int, int],
    follow: SampleTrace | None,
    earlier: Tensor | None,
) -> tuple[Tensor, SampleTrace]:
    """All layers of a block over one sample's tokens [N, C], with pruning and recovery; what is kept and copied is
    what `follow` says, if there is one. `chance`: what it starts from, and the block's place. `earlier`: scores in
    place of a ranking."""
    alive = torch.arange(tokens.shape[0])
    weights = torch.ones(len(alive), dtype=tokens.dtype)
    cuts: list[Cut] = []
    befores: list[Tensor] = []
    first_scores = follow.scores if follow else None
    for index, layer in enumerate(block.transformer_blocks):
        keep = kept_count(len(alive), ratio) if index in method.prune_after else len(alive)
        # Where a map ranks, it is the plain one.
        weighs = method.proportional_attention and cuts and keep == len(alive)
        bias = weights.log()[None, None, :] if weighs else None
        with inputs_of(layer) as seen:
            tokens = layer(tokens[None], encoder_hidden_states=context[None], attention_mask=bias)[0]
        if index not in method.prune_after:
            continue
        if follow:
            cut = follow.cuts[len(cuts)]
        else:
            self_map = attention_map(layer.attn1, seen["attn1"][0], seen["attn1"][0])
            is_cross = method.map == "cross"
            scored = attention_map(layer.attn2, seen["attn2"][0], context) if is_cross else self_map
            scores = rank(scored, method, margins) if earlier is None else earlier
            first_scores = scores if first_scores is None else first_scores
            if method.selection == "sampled":
                start, place = chance
                scores = chances(scores, split_mix(start, place * MAX_LAYERS + index))
            kept = select(scores, keep, margins)
            places = torch.stack([alive // width, alive % width], dim=1)
            cut = Cut(kept, sources(method, kept, self_map, tokens, places, margins))
        cuts.append(cut)
        befores.append(tokens)
        weights = weights_behind(cut, weights)
        tokens, alive = tokens[cut.kept], alive[cut.kept]
    final = alive
    origin = alive
    for cut, before in zip(reversed(cuts), reversed(befores)):
        tokens = recover(cut, before, tokens, method.copy)
        slot = slots(cut)
        origin = torch.where(slot >= 0, origin[slot.clamp(min=0)], -1)
    return tokens, SampleTrace(final, origin, first_scores, cuts)


def pruned_forward(block: Transformer2DModel, hidden: Tensor, context: Tensor, pass_tokens: Callable) -> Tensor:
    """A spatial transformer around `pass_tokens(tokens [B, N, C], context)`: [B, C, H, W] in and out."""
    height, width = hidden.shape[2:]
    x = block.norm(hidden)
    if not block.use_linear_projection:
        x = block.proj_in(x)
    x = x.flatten(2).transpose(1, 2)
    if block.use_linear_projection:
        x = block.proj_in(x)
    x = pass_tokens(x, context)
    if block.use_linear_projection:
        x = block.proj_out(x)
    x = x.transpose(1, 2).unflatten(2, (height, width))
    if not block.use_linear_projection:
        x = block.proj_out(x)
    return x + hidden


class Pruner:
    """Replaces the forward pass of a UNet's attention blocks; set `ratios` before each UNet evaluation."""

    def __init__(self, unet: UNet2DConditionModel, method: Method) -> None:
        self.method = method
        self.margins = Margins()
        self.ratios: dict[str, float] = {}
        self.draw = 0
        self.step = -1
        self.ranked: dict[str, int] = {}  # the step of the latest ranking, by block
        self.scores: dict[tuple[str, int], Tensor] = {}  # of that, by block and sample
        self.traces: dict[str, list[SampleTrace]] = {}
        self.blocks = attention_blocks(unet.config)
        for block in self.blocks:
            self._replace(block, unet.get_submodule(block.path))

    def start_step(self, ratios: list[float], draw: int) -> None:
        """Ratios by block in execution order, and what chance starts from; forgets the traces of the step before."""
        self.draw = draw
        self.step += 1
        self.ratios = {block.name: ratio for block, ratio in zip(self.blocks, ratios, strict=True)}
        self.traces = {}

    def _replace(self, block: Block, module: Transformer2DModel) -> None:
        unpruned = module.forward
        place = self.blocks.index(block)
        has_layer = any(layer < block.layers for layer in self.method.prune_after)

        def forward(this: Transformer2DModel, hidden_states: Tensor, **kwargs: Any) -> Any:
            ratio = self.ratios[block.name]
            if ratio == 0.0 or not has_layer:
                return unpruned(hidden_states, **kwargs)

            def pass_tokens(tokens: Tensor, context: Tensor) -> Tensor:
                width, passed, first = hidden_states.shape[-1], [], None
                loses = kept_count(tokens.shape[1], ratio) < tokens.shape[1]
                anew = self.step - self.ranked.get(block.name, -self.method.interval) >= self.method.interval
                if loses and anew:
                    self.ranked[block.name] = self.step
                for i in reversed(range(tokens.shape[0])):  # the conditional half is the last
                    follow = first if self.method.masks == "shared" else None
                    given = (this, tokens[i], context[i], width, ratio, self.method, self.margins)
                    earlier = None if anew else self.scores[block.name, i]
                    passed.append(run_sample(*given, (self.draw, place), follow, earlier))
                    first = passed[0][1]
                    if loses and anew:
                        self.scores[block.name, i] = passed[-1][1].scores
                self.traces[block.name] = [trace for _, trace in reversed(passed)]
                return torch.stack([out for out, _ in reversed(passed)])

            output = pruned_forward(this, hidden_states, kwargs["encoder_hidden_states"], pass_tokens)
            return Transformer2DModelOutput(sample=output) if kwargs.get("return_dict", True) else (output,)

        module.forward = types.MethodType(forward, module)
