"""Multiply-accumulates counted by hooks on diffusers' modules, run on the meta device (shapes, no numbers).

Counted: every convolution, every linear layer, both attention products. What pruning itself costs is not.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, Transformer2DModel, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModelOutput
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from transformers.models.clip.modeling_clip import CLIPAttention

from atedm_oracle import Method, pruned_forward
from atedm_plan import attention_blocks, kept_count, resolve
from common import DATA_DIR, model_named, write_json
from golden_atedm import cases as atedm_cases
from topologies import (
    MODELS,
    SDXL_BASE_TEXT_1,
    SDXL_BASE_TEXT_2,
    SDXL_BASE_UNET,
    SDXL_BASE_VAE,
    SDXL_BASE_VOCABULARY,
    TextEncoder,
    text_config,
    unet_config,
    vae_config,
)

TEXT_TOKENS = 77
STEPS = 50
KINDS = ("convolution", "linear", "attention")

# The rows of the plans' table in at-edm.md.
PLANS: dict[str, dict[str, Any]] = {
    "off": {"ratio": 0.0, "schedule": "uniform"},
    "uniform-0.63": {"ratio": 0.63, "schedule": "uniform"},
    "uniform-0.63-dagger": {"ratio": 0.63, "schedule": "uniform", "skip_levels": [1]},
    "dsap-0.699": {"ratio": 0.699, "schedule": "dsap", "tau": 0.3},
    "dsap-0.70": {"ratio": 0.70, "schedule": "dsap", "tau": 0.3},
    "dsap-0.70-dagger": {"ratio": 0.70, "schedule": "dsap", "tau": 0.3, "skip_levels": [1]},
    "dsap-0.845": {"ratio": 0.845, "schedule": "dsap", "tau": 0.3},
    "uniform-0.937": {"ratio": 0.937, "schedule": "uniform"},
    "dsap-0.9999": {"ratio": 0.9999, "schedule": "dsap", "tau": 0.3},
    "uniform-0.5-after-0-3": {"ratio": 0.5, "schedule": "uniform", "prune_after": [0, 3]},
    "uniform-0.63-after-1": {"ratio": 0.63, "schedule": "uniform", "prune_after": [1]},
}


@dataclass
class Counter:
    """Multiply-accumulates by kind and by the module (a path) that ran them."""

    by_module: dict[tuple[str, str], int]

    def totals(self, prefix: str = "") -> dict[str, int]:
        def is_inside(path: str) -> bool:
            return not prefix or path == prefix or path.startswith(prefix + ".")

        chosen = {key: macs for key, macs in self.by_module.items() if is_inside(key[1])}
        out = {kind: sum(macs for (k, _), macs in chosen.items() if k == kind) for kind in KINDS}
        return out | {"total": sum(out.values())}


def attention_macs(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> int:
    """Q K^T and P V of one call; a causal mask saves nothing."""
    queries = args[0] if args else kwargs["hidden_states"]
    rows = queries.flatten(2).transpose(1, 2) if queries.ndim == 4 else queries
    context = kwargs.get("encoder_hidden_states")
    columns = rows.shape[1] if context is None else context.shape[1]
    width = module.embed_dim if isinstance(module, CLIPAttention) else module.inner_dim
    return 2 * rows.shape[0] * rows.shape[1] * columns * width


@contextmanager
def counting(model: nn.Module) -> Iterator[Counter]:
    """Counts everything that runs inside."""
    counter = Counter({})
    hooks = []

    def add(kind: str, path: str, macs: int) -> None:
        counter.by_module[kind, path] = counter.by_module.get((kind, path), 0) + macs

    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):

            def convolution(m: nn.Conv2d, _args: tuple, output: torch.Tensor, path: str = path) -> None:
                add("convolution", path, output.numel() * m.weight[0].numel())

            hooks.append(module.register_forward_hook(convolution))
        elif isinstance(module, nn.Linear):

            def linear(m: nn.Linear, _args: tuple, output: torch.Tensor, path: str = path) -> None:
                add("linear", path, output.numel() * m.in_features)

            hooks.append(module.register_forward_hook(linear))
        elif isinstance(module, (Attention, CLIPAttention)):

            def attention(m: nn.Module, args: tuple, kwargs: dict, _output: Any, path: str = path) -> None:
                add("attention", path, attention_macs(m, args, kwargs))

            hooks.append(module.register_forward_hook(attention, with_kwargs=True))
    try:
        yield counter
    finally:
        for hook in hooks:
            hook.remove()


def shorten(module: Transformer2DModel, ratio: float, prune_after: tuple[int, ...]) -> None:
    """Makes a block run with the token counts that pruning leaves it; which tokens does not matter here."""

    def pass_tokens(_sample: int, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        n = tokens.shape[0]
        for index, layer in enumerate(module.transformer_blocks):
            tokens = layer(tokens[None], encoder_hidden_states=context[None])[0]
            if index in prune_after:
                tokens = tokens[: kept_count(tokens.shape[0], ratio)]
        return torch.cat([tokens, tokens.new_empty(n - tokens.shape[0], tokens.shape[1])])

    def forward(this: Transformer2DModel, hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        output = pruned_forward(this, hidden_states, kwargs["encoder_hidden_states"], pass_tokens)
        return Transformer2DModelOutput(sample=output) if kwargs.get("return_dict", True) else (output,)

    module.forward = types.MethodType(forward, module)


class UnetCost:
    """Cost of one evaluation, batch 1, by the ratios of its attention blocks."""

    def __init__(self, config: dict[str, Any]) -> None:
        with torch.device("meta"):
            self.unet = UNet2DConditionModel(**config)
        self.blocks = attention_blocks(self.unet.config)
        self.evaluate = cache(self._evaluate)

    def _evaluate(self, width: int, height: int, ratios: tuple[float, ...], prune_after: tuple[int, ...]) -> Counter:
        config = self.unet.config
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        for block, ratio in zip(self.blocks, ratios, strict=True):
            shorten(self.unet.get_submodule(block.path), ratio, prune_after)
        with torch.device("meta"), counting(self.unet) as counter:
            self.unet(
                torch.empty(1, 4, height // 8, width // 8),
                torch.empty(1),
                torch.empty(1, TEXT_TOKENS, config.cross_attention_dim),
                added_cond_kwargs={"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)},
            )
        return counter

    def plan(self, pruning: dict[str, Any], width: int, height: int, steps: int) -> list[dict[str, int]]:
        """Totals of every step of a plan."""
        after = Method.of(pruning).prune_after
        rows = resolve(pruning, self.blocks, steps)
        return [self.evaluate(width, height, tuple(row), after).totals() for row in rows]

    def unpruned(self, width: int, height: int) -> dict[str, Any]:
        """Totals, and those of every attention block."""
        counter = self.evaluate(width, height, (0.0,) * len(self.blocks), ())
        return counter.totals() | {"blocks": {b.name: counter.totals(b.path)["total"] for b in self.blocks}}


def vae_cost(config: dict[str, Any], width: int, height: int) -> dict[str, int]:
    """One decode, batch 1, the 1x1 convolution before the decoder included where the model has one."""
    with torch.device("meta"):
        vae = AutoencoderKL(**config)
        with counting(vae) as counter:
            vae.decode(torch.empty(1, 4, height // 8, width // 8))
    return counter.totals()


def text_cost(encoder: TextEncoder, vocabulary: int, projected: bool) -> dict[str, Any]:
    """One prompt; `last_layer` is what an implementation saves that does not need the last layer's output."""
    config = CLIPTextConfig(**text_config(encoder, vocabulary))
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)
        with counting(model) as counter:
            model(torch.zeros(1, TEXT_TOKENS, dtype=torch.long))
    last = counter.totals(f"text_model.encoder.layers.{encoder.layers - 1}")["total"]
    return counter.totals() | {"last_layer": last}


def plan_summary(cost: UnetCost, pruning: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """A plan over STEPS steps: MACs of the first and the last step, the mean, and its share of the whole."""
    totals = [step["total"] for step in cost.plan(pruning, width, height, STEPS)]
    mean = sum(totals) / STEPS
    whole = cost.unpruned(width, height)["total"]
    return {
        "pruning": pruning,
        "first_step": totals[0],
        "last_step": totals[-1],
        "mean": mean,
        "mean_tflops": 2.0 * mean / 1e12,
        "share": mean / whole,
    }


def sdxl_base() -> dict[str, Any]:
    cost = UnetCost(SDXL_BASE_UNET)
    sizes = ((1024, 1024), (768, 768), (512, 512), (1152, 896))
    plans = {name: plan_summary(cost, pruning, 1024, 1024) for name, pruning in PLANS.items()}
    small = {name: plan_summary(cost, PLANS[name], 512, 512) for name in ("uniform-0.63", "dsap-0.70")}
    return {
        "unet": {f"{w}x{h}": cost.unpruned(w, h) for w, h in sizes},
        "vae": {f"{w}x{h}": vae_cost(SDXL_BASE_VAE, w, h) for w, h in sizes},
        "text_encoder": text_cost(SDXL_BASE_TEXT_1, SDXL_BASE_VOCABULARY, projected=False),
        "text_encoder_2": text_cost(SDXL_BASE_TEXT_2, SDXL_BASE_VOCABULARY, projected=True),
        "plans": {"1024x1024": plans, "512x512": small},
    }


def toy(name: str) -> dict[str, Any]:
    model = model_named(name)
    cost = UnetCost(unet_config(model))
    sizes = ((96, 64), (32, 96), (128, 96), (104, 72))
    vocabulary = 512 + model.merges + 2
    plans = {plan: plan_summary(cost, PLANS[plan], 128, 96) for plan in ("uniform-0.63", "dsap-0.70-dagger")}
    return {
        "unet": {f"{w}x{h}": cost.unpruned(w, h) for w, h in sizes},
        "vae": {f"{w}x{h}": vae_cost(vae_config(model), w, h) for w, h in sizes},
        "text_encoder": text_cost(model.text_1, vocabulary, projected=False),
        "text_encoder_2": text_cost(model.text_2, vocabulary, projected=True),
        "plans": {"128x96": plans},
    }


def atedm_case_macs() -> dict[str, list[int]]:
    """MACs of every step of the AT-EDM goldens, of one sample."""
    costs = {model.name: UnetCost(unet_config(model)) for model in MODELS}
    out = {}
    for name, spec in atedm_cases().items():
        request = spec["request"]
        steps = costs[spec["model"]].plan(spec["pruning"], request.width, request.height, request.steps)
        out[name] = [step["total"] for step in steps]
    return out


def check_against_the_specification(base: dict[str, Any]) -> None:
    """Every figure of at-edm.md, to its last printed digit.

    The specification prints the steps of "rho 0.70, DSAP" as they are at 0.699; at 0.70 they are 4.809 and 3.792.
    """
    unet = base["unet"]
    whole = unet["1024x1024"]
    got = [f"{whole[kind] / 1e12:.3f}" for kind in (*KINDS, "total")]
    got += [f"{2 * unet[size]['total'] / 1e12:.3f}" for size in ("512x512", "768x768")]
    plans = base["plans"]["1024x1024"]
    dsap = plans["dsap-0.699"]
    got += [f"{plans['uniform-0.63']['mean_tflops']:.3f}", f"{plans['uniform-0.63-dagger']['mean_tflops']:.3f}"]
    got += [f"{2 * dsap[step] / 1e12:.3f}" for step in ("first_step", "last_step")]
    rounded = ("dsap-0.70", "dsap-0.70-dagger", "dsap-0.845", "uniform-0.937", "dsap-0.9999")
    got += [f"{plans[name]['mean_tflops']:.2f}" for name in rounded]
    wanted = "0.812 2.177 0.392 3.381 1.589 3.641 4.065 4.443 4.812 3.796 4.10 4.46 3.60 2.90 3.09".split()
    print("flops:", " ".join(got))
    if got != wanted:
        raise ValueError(
            f"differs from at-edm.md: {[pair for pair in zip(got, wanted, strict=True) if pair[0] != pair[1]]}"
        )


def write_all(file: Path = DATA_DIR / "flops.json") -> None:
    base = sdxl_base()
    toys = {model.name: toy(model.name) for model in MODELS}
    write_json(file, {"sdxl-base": base} | toys | {"atedm": atedm_case_macs()})
    check_against_the_specification(base)
