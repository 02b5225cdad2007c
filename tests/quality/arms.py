"""The arms of the evaluation, that is ways to prune, and the pairs of arms that are compared."""

from __future__ import annotations

_VARIANTS = {
    "random": {"score": {"map": "random"}},
    "cross": {"score": {"map": "cross"}},
    "cosine": {"recovery": "cosine"},
    "nearest": {"recovery": "nearest"},
    "zero": {"recovery": "zero"},
    "own": {"masks": "own"},
    "value": {"copy": "value"},
    "plain": {"proportional_attention": False},
    "top": {"selection": "top"},
    "interval-2": {"score": {"interval": 2}},
    "interval-4": {"score": {"interval": 4}},
    "ranked-once": {"score": {"interval": 1000}},
    "paper": {"selection": "top", "copy": "value", "proportional_attention": False, "masks": "own"},
}
# The variants have the settings of these presets: the same ratio and schedule, and so the same UNet FLOPs, apart from overhead.
_VARIED = {"c": "at-edm-c", "dagger": "at-edm-dagger"}

# name: the field `pruning` of the request
ARMS = {"off": "off", **{f"at-edm-{x}": f"at-edm-{x}" for x in ("a", "b", "c", "d", "dagger")}}
for _short, _preset in _VARIED.items():
    for _name, _fields in _VARIANTS.items():
        ARMS[f"{_name}@{_short}"] = {"preset": _preset, **_fields}

# These show in which steps pruning does harm: they prune in a part of the steps only, with the preset's ratio in all blocks.
_PARTS = {"early": (0.0, 0.4), "middle": (0.3, 0.7), "late": (0.6, 1.0), "but-late": (0.0, 0.8)}


def _phases(begin: float, end: float, ratio: float) -> list[dict]:
    spans = [(begin, 0.0), (end, ratio), (1.0, 0.0)]
    return [{"until": until, "ratio": r} for i, (until, r) in enumerate(spans) if until > (spans[i - 1][0] if i else 0)]


for _name, (_begin, _end) in _PARTS.items():
    ARMS[f"{_name}@c"] = {"preset": "at-edm-c", "phases": _phases(_begin, _end, 0.7)}

COMPARISONS = [
    *((f"at-edm-{x}", "off") for x in ("a", "b", "c", "d", "dagger")),
    *((f"{name}@c", "off") for name in _PARTS),
    *((preset, f"{name}@{short}") for short, preset in _VARIED.items() for name in _VARIANTS),
    *((preset, f"{name}@{short}") for short, preset in _VARIED.items() for name in ("tome", "tome-attention")),
    *((f"cosine@{short}", f"tome@{short}") for short in _VARIED),
    *((f"{name}@{short}", "diffusers") for short in _VARIED for name in ("tome", "tome-attention")),
]
